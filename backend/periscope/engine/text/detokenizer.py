"""Turns token ids into text one token at a time, in whole characters and without any part of a stop string.

Each object is owned by one row and used on its worker thread only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers.decoders import DecodeStream


class Detokenizer(Protocol):
    """Incremental decoding of one completion."""

    def feed(self, token_id: int) -> str:
        """Return the text that this token completes; empty while a character is incomplete."""
        ...

    def finish(self) -> str:
        """Return the remaining text. Bytes of an incomplete character are dropped."""
        ...


class FastDetokenizer:
    """Uses the Rust tokenizer's `DecodeStream`, which supports every decoder and buffers incomplete UTF-8.

    Args:
        after: the tokens whose text goes on; none for a text of its own.
    """

    def __init__(self, tokenizer: Any, after: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)
        for token_id in after:  # `DecodeStream(ids=...)` repeats all of them if they end within a character (0.23)
            self.feed(token_id)

    def feed(self, token_id: int) -> str:
        try:
            return self._stream.step(self._tokenizer, token_id) or ""
        except Exception as error:
            # tokenizers 0.23 raises a bare Exception when the decoded prefix changes under it (seen with invalid
            # byte sequences); starting anew loses at most the incomplete character. Exit: a typed error upstream.
            if "Invalid prefix" not in str(error):
                raise
            self._stream = DecodeStream(skip_special_tokens=False)
            return self._stream.step(self._tokenizer, token_id) or ""

    def finish(self) -> str:
        return ""


class SlowDetokenizer:
    """mlx-lm's streaming detokenizer, for tokenizers without a Rust core (SentencePiece, tiktoken files).

    Args:
        after: as for `FastDetokenizer`.
    """

    def __init__(self, streaming: Any, after: Sequence[int] = ()) -> None:
        self._streaming = streaming
        for token_id in after:
            self.feed(token_id)

    def feed(self, token_id: int) -> str:
        self._streaming.add_token(token_id)
        return self._last_segment()

    def finish(self) -> str:
        self._streaming.finalize()
        return self._last_segment().rstrip("\ufffd")

    def _last_segment(self) -> str:
        return str(self._streaming.last_segment)


def new_detokenizer(tokenizer: Any, after: Sequence[int] = ()) -> Detokenizer:
    """A new detokenizer for mlx-lm's `TokenizerWrapper`, of a text that goes on after these tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "id_to_token"):
        return FastDetokenizer(backend, after)
    return SlowDetokenizer(tokenizer.detokenizer, after)


class StopStrings:
    """Ends a text before the first complete stop string, and buffers text that may become one.

    `feed` and `finish` together return exactly the text before the stop string, however the text was split.

    Attributes:
        found: the stop string that ended the text; None while it goes on.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._buffered = ""
        self.found: str | None = None

    @property
    def is_hit(self) -> bool:
        """Whether a stop string has ended the text."""
        return self.found is not None

    def feed(self, text: str) -> str:
        """Return the text that is certain not to be part of a stop string."""
        if not self._stops or self.is_hit:
            return "" if self.is_hit else text
        text = self._buffered + text
        hits = [(at + len(stop), at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            _, at, self.found = min(hits)
            self._buffered = ""
            return text[:at]
        num_buffered = max(_overlap(text, stop) for stop in self._stops)
        self._buffered = text[len(text) - num_buffered :]
        return text[: len(text) - num_buffered]

    def finish(self) -> str:
        """Return the text that was buffered as a possible stop string. Call once, at the end."""
        buffered, self._buffered = self._buffered, ""
        return buffered


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a proper prefix of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
