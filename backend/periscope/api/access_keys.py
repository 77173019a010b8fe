"""The API keys that a server takes, each under the name by which its requests are told apart. Kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

#: What stands before the digits in models.yaml.
SHA256 = "sha256:"
#: Names of the two keys that have no name of their own.
PLAIN_KEY, TOKEN = "api_key", "token"


def hash_of(key: str) -> str:
    """Pure: a key's hash, as models.yaml has it.

    SHA-256 without salt and without rounds is right for keys that `periscope key new` makes, which are 256 random bits:
    nobody can try them out, so nothing is gained by making each try slow. It would not be for words that people choose.
    """
    return SHA256 + hashlib.sha256(key.encode()).hexdigest()


class AccessKeys:
    """Owns which keys open the server now. Event loop only; other keys may take their place while it runs.

    Args:
        token: opens as well, but only where a key is asked for.
    """

    def __init__(self, token: str | None = None) -> None:
        self._token = token
        self._hashes: dict[str, str] = {}

    @property
    def are_asked_for(self) -> bool:
        """Whether requests need a key."""
        return bool(self._hashes)

    def replace(self, api_key: str | None, hashes: Mapping[str, str]) -> None:
        """These open the server from now on, and no others.

        Args:
            api_key: the key without a name.
            hashes: name -> `sha256:...`.
        """
        keys = dict(hashes)
        if api_key is not None:
            keys[PLAIN_KEY] = hash_of(api_key)
        if keys and self._token:
            keys[TOKEN] = hash_of(self._token)
        self._hashes = keys

    def name_of(self, offered: Iterable[bytes]) -> str | None:
        """The name of the first key that opens, of those offered; None if none does. As fast for every wrong key."""
        tried = [SHA256 + hashlib.sha256(key).hexdigest() for key in offered]
        found = [name for each in tried for name, known in self._hashes.items() if hmac.compare_digest(each, known)]
        return found[0] if found else None
