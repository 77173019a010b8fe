"""What follows the comma of a data: URL, in slices of a mebibyte."""

from __future__ import annotations

import base64
import binascii
from urllib.parse import quote

import pytest

from periscope.vision.data_urls import decoded_base64, num_base64_bytes, unescaped

SLICE_CHARS = 2**20


@pytest.mark.parametrize("before", range(4))
def test_percent_escapes_are_read_wherever_a_slice_ends(before: int) -> None:
    """No escape is lost or halved, for text and for base64."""
    text = "a" * (SLICE_CHARS - before) + "é%"
    url = "data:," + "a" * (SLICE_CHARS - before) + quote("é%")
    assert b"".join(unescaped(url, 6)).decode() == text
    data = bytes(range(248, 256)) * 40_000
    escaped = "A" * 4 * before + quote(base64.b64encode(data).decode(), safe="")
    assert b"".join(decoded_base64(escaped, 0)) == bytes(3 * before) + data
    assert num_base64_bytes(escaped, 0) == 3 * before + len(data)


def test_padding_ends_base64_wherever_a_slice_ends() -> None:
    """It may stand in several slices, with white space; digits behind it are an error."""
    padded = "QUI=" + " " * SLICE_CHARS + "= \n"
    assert b"".join(decoded_base64(padded, 0)) == b"AB"
    assert num_base64_bytes(padded, 0) == 2
    for behind in ("QUI=", "Q"):
        with pytest.raises(binascii.Error):
            list(decoded_base64(padded + behind, 0))


def test_what_is_no_text_is_no_base64() -> None:
    """Neither a letter beyond ASCII nor half of a surrogate pair; as text both are bytes."""
    for character in ("é", "\ud800"):
        with pytest.raises(ValueError, match="base64"):
            list(decoded_base64(f"QUI{character}", 0))
        assert len(b"".join(unescaped(character, 0))) >= 2
