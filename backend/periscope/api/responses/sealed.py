"""Reasoning as clients carry it from turn to turn: `encrypted_content`, which is opaque to them. Pure.

It keeps no secret from the client, which gets the same reasoning in the clear. The seal shows that this server wrote
it: what another server wrote cannot be read here, and is not taken for reasoning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import zlib
from typing import Final

#: Of the form of what follows it.
_PREFIX: Final = "psr1."
_TAG_BYTES: Final = 16
#: More than any model reasons; what it is made of fits the bound of a request.
_MAX_TEXT_BYTES: Final = 16 * 1024 * 1024


class ReasoningSeal:
    """Seals reasoning with a key, and opens what it has sealed.

    Args:
        secret: the same at every start of this server, so that conversations go on after a restart.
    """

    def __init__(self, secret: str) -> None:
        self._key = hashlib.sha256(b"periscope reasoning\0" + secret.encode()).digest()

    def sealed(self, text: str) -> str:
        """The reasoning in its opaque form."""
        data = zlib.compress(text.encode(errors="surrogatepass"))
        return _PREFIX + base64.urlsafe_b64encode(self._tag(data) + data).decode()

    def opened(self, sealed: str) -> str | None:
        """The reasoning; None if this is not something that was sealed with this key."""
        try:
            told = base64.b64decode(sealed.removeprefix(_PREFIX), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        tag, data = told[:_TAG_BYTES], told[_TAG_BYTES:]
        if not sealed.startswith(_PREFIX) or not hmac.compare_digest(tag, self._tag(data)):
            return None
        text = zlib.decompressobj().decompress(data, _MAX_TEXT_BYTES)
        return text.decode(errors="surrogatepass")

    def _tag(self, data: bytes) -> bytes:
        return hmac.digest(self._key, data, "sha256")[:_TAG_BYTES]
