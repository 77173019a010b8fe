"""Token ids to text, one token at a time: whole characters only, and never a piece of a stop string.

Owned by one row, used on its worker thread. Pure apart from its own buffer.
"""

from __future__ import annotations

from typing import Any, Protocol

from tokenizers.decoders import DecodeStream


class Detokenizer(Protocol):
    """Incremental decoding of one completion."""

    def feed(self, token_id: int) -> str:
        """Text that became certain with this token; empty while a character is incomplete."""
        ...

    def finish(self) -> str:
        """What is left at the end. Bytes that never became a character are dropped."""
        ...


class FastDetokenizer:
    """Over the Rust tokenizer's own stream, which knows every decoder and holds incomplete UTF-8 back."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=False)

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
    """For tokenizers without a Rust core (SentencePiece, tiktoken files): mlx-lm's streaming detokenizer."""

    def __init__(self, streaming: Any) -> None:
        self._streaming = streaming

    def feed(self, token_id: int) -> str:
        self._streaming.add_token(token_id)
        return self._last_segment()

    def finish(self) -> str:
        self._streaming.finalize()
        return self._last_segment().rstrip("\ufffd")

    def _last_segment(self) -> str:
        return str(self._streaming.last_segment)


def new_detokenizer(tokenizer: Any) -> Detokenizer:
    """A fresh detokenizer for mlx-lm's `TokenizerWrapper`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and hasattr(backend, "id_to_token"):
        return FastDetokenizer(backend)
    return SlowDetokenizer(tokenizer.detokenizer)


class StopStrings:
    """Cuts a text at the stop string that is complete first, and holds back what might become one.

    `feed` and `finish` together return exactly the text before it, however the text was sliced.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.is_hit = False

    def feed(self, text: str) -> str:
        """Text that is certain not to belong to a stop string."""
        if not self._stops or self.is_hit:
            return "" if self.is_hit else text
        text = self._held + text
        hits = [(at + len(stop), at) for stop in self._stops if (at := text.find(stop)) >= 0]
        if hits:
            self.is_hit, self._held = True, ""
            return text[: min(hits)[1]]
        num_held = max(_overlap(text, stop) for stop in self._stops)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def finish(self) -> str:
        """The end has come: what was held back is text after all."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a proper beginning of `stop`."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if stop.startswith(text[-size:]):
            return size
    return 0
