"""The text and bytes of each token of a vocabulary. One table per model, used on its worker thread."""

from __future__ import annotations

import re
from typing import Any

from periscope.core import TokenText

_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
#: How SentencePiece writes a space.
_SPACE_PIECE = "\u2581"


def _byte_alphabet() -> dict[str, int]:
    """Character to byte in byte-level tokenizers: printable bytes map to themselves, the others from U+0100 on.

    Source: GPT-2's `bytes_to_unicode`.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + place): byte for place, byte in enumerate(others)}


_BYTE_OF_CHAR = _byte_alphabet()
#: What every byte-level vocabulary has: a blank, and the bytes by which characters beyond ASCII go on. Rare bytes are
#: missing from vocabularies that were cut to what their training texts held (SmolLM's have 235 of 256).
_BYTE_LEVEL_CHARS = tuple(char for char, byte in _BYTE_OF_CHAR.items() if byte == 0x20 or 0x80 <= byte < 0xC0)


class TokenTable:
    """Owns the texts of a vocabulary's tokens, each computed at its first use.

    Args:
        tokenizer: a Hugging Face tokenizer or mlx-lm's wrapper of one.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._size = len(tokenizer)
        vocabulary = tokenizer.get_vocab()
        self._is_byte_level = _SPACE_PIECE not in vocabulary and all(char in vocabulary for char in _BYTE_LEVEL_CHARS)
        self._added = {token_id: text for text, token_id in tokenizer.get_added_vocab().items()}
        self._texts: dict[int, TokenText] = {}

    def text(self, token_id: int) -> TokenText:
        """The token's own text and bytes; empty for ids that the tokenizer does not know (padded vocabularies)."""
        known = self._texts.get(token_id)
        if known is None:
            utf8 = self._bytes(token_id)
            known = self._texts[token_id] = TokenText(token_id, utf8.decode("utf-8", "replace"), utf8)
        return known

    def _bytes(self, token_id: int) -> bytes:
        if token_id in self._added:
            return self._added[token_id].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token_id) if 0 <= token_id < self._size else None
        if piece is None:
            return b""
        if isinstance(piece, bytes):  # tokenizers made of tiktoken files
            return piece
        if self._is_byte_level and all(char in _BYTE_OF_CHAR for char in piece):
            return bytes(_BYTE_OF_CHAR[char] for char in piece)
        if byte := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        return str(piece).replace(_SPACE_PIECE, " ").encode()
