"""Refuses prompts that cannot fit the context before they cost much: by arithmetic, then by counting in pieces.

Rendering and tokenising take time and memory in proportion to the text (tokenising 50 MB took 93 s and 9.7 GB), and a
text that cannot fit the context should not cost that. Two checks, from cheap to exact:

1. Arithmetic. A token covers a limited number of characters, which gives a lower bound for the number of tokens.
2. Counting. A long text is tokenised in pieces, whose tokens are discarded, until their number exceeds the context.

A text that passes both checks is tokenised as a whole, so its tokens do not depend on the checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from periscope.core import JSONObject, Message, Role, Tool
from periscope.errors import ContextLengthExceeded

if TYPE_CHECKING:
    from typing import Final

#: A text of up to this many characters per token of the context is tokenised without counting first. That covers most
#: prompts that fit, in any language; only those near or over the limit are counted.
CHARS_PER_TOKEN_AT_ONCE: Final = 4
#: Characters of a piece. Small, because turning a piece's tokens into Python objects holds the interpreter's lock.
PIECE_CHARS: Final = 16 * 1024
#: A cut may change the tokens around it. So each piece counts as this many tokens fewer, and all pieces as one percent
#: fewer: a prompt that fits must not be refused because of the cuts.
TOKENS_LOST_BY_CUT: Final = 32
_SURE_SHARE: Final = 0.99

#: Normalizers and pre-tokenizers that never make a text shorter, not counting whitespace.
_KEEPING_STEPS = frozenset(
    {"NFD", "NFKD", "Prepend", "Strip", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits"}
)
#: Normalizers that may compose a letter and its marks, up to four characters, into one.
_COMPOSING_STEPS = frozenset({"NFC", "NFKC"})
_MOST_COMPOSED = 4
_WHITESPACE = " \n\t\r\f\v"
_NUM_BYTE_VALUES = 256


class PromptBounds:
    """Owns the measured properties of one tokenizer, computed at first use. The caller holds the tokenizer's lock.

    Args:
        tokenizer: mlx-lm's wrapper around the model's tokenizer.
        context_length: in tokens, prompt and completion together; None = nothing is refused.
    """

    def __init__(self, tokenizer: Any, context_length: int | None) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length

    @cached_property
    def reach(self) -> int | None:
        """The most characters that one token covers; None if there is no such bound."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return None if backend is None else reach_of(backend)

    def check(self, texts: Iterable[str], *, num_messages: int = 0) -> None:
        """Refuse by arithmetic what cannot fit, however the template formats it.

        Args:
            texts: texts that are certainly in the prompt; see `certain_texts`.
            num_messages: number of non-empty messages. Templates separate them, so each has at least one token.

        Raises:
            ContextLengthExceeded: states the least number of tokens that they can have.
        """
        if self._context_length is None or self.reach is None:
            return
        num_chars = sum(map(certain_chars, texts))
        least = max(-(-num_chars // self.reach), num_messages)
        if least >= self._context_length:
            raise ContextLengthExceeded(least, self._context_length, is_lower_bound=True)

    def check_tokens(self, num_tokens: int) -> None:
        """Refuse a prompt of so many tokens if that is too many.

        Raises:
            ContextLengthExceeded: it has no room for a completion.
        """
        if self._context_length is not None and num_tokens >= self._context_length:
            raise ContextLengthExceeded(num_tokens, self._context_length)

    def encode(self, encode: Callable[[str], Sequence[int]], text: str) -> tuple[int, ...]:
        """`encode(text)`, unless its pieces alone have too many tokens.

        Raises:
            ContextLengthExceeded: states the number of tokens counted so far.
        """
        limit = self._context_length
        if limit is not None and len(text) > CHARS_PER_TOKEN_AT_ONCE * limit:
            num_tokens = 0.0
            for piece in pieces_of(text):
                num_tokens += max(0, len(encode(piece)) - TOKENS_LOST_BY_CUT) * _SURE_SHARE
                if num_tokens >= limit:
                    raise ContextLengthExceeded(int(num_tokens), limit, is_lower_bound=True)
        return tuple(encode(text))


def pieces_of(text: str) -> Iterator[str]:
    """Pure: split a text into pieces of at most `PIECE_CHARS` characters, before whitespace where possible."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            blank = max(text.rfind(" ", start + PIECE_CHARS // 2, end), text.rfind("\n", start + PIECE_CHARS // 2, end))
            end = blank if blank > start else end
        yield text[start:end]
        start = end


def certain_texts(messages: Sequence[Message], tools: Sequence[Tool], think_end: str | None) -> Iterator[str]:
    """Pure: the texts of a chat that every template puts into the prompt.

    The reasoning of earlier turns is not among them, neither the field nor the content before `think_end`, because
    templates drop it by design.
    """
    for message in messages:
        text = message.text
        if message.role is Role.ASSISTANT:
            for marker in {think_end or "</think>", "</think>"}:
                text = text.rpartition(marker)[2]
        yield text
        for call in message.tool_calls:
            yield call.arguments
    for tool in tools:
        yield tool.description
        yield from _strings_in(tool.parameters)


def _strings_in(schema: JSONObject) -> Iterator[str]:
    """All keys and string values of a tool's schema."""
    pending: list[Any] = [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            yield from value
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def certain_chars(text: str) -> int:
    """Pure: the least number of characters of a text that reach the tokenizer's model.

    Whitespace may be trimmed or dropped, and other than in ASCII characters may be composed.
    """
    text = text.strip()
    num_chars = len(text) - sum(map(text.count, _WHITESPACE))
    return num_chars if text.isascii() else num_chars // _MOST_COMPOSED


def reach_of(backend: Any) -> int | None:
    """The most characters that one token covers; None if a run of any length could become one token or none.

    Args:
        backend: a `tokenizers.Tokenizer`.
    """
    steps = [step for part in (backend.normalizer, backend.pre_tokenizer) for step in _steps_of(part)]
    if not all(map(_is_keeping, steps)):
        return None
    vocabulary = backend.get_vocab(with_added_tokens=True)
    has_bytes = any(step["type"] == "ByteLevel" for step in steps)
    if has_bytes:
        from tokenizers.pre_tokenizers import ByteLevel

        is_whole = set(ByteLevel.alphabet()) <= vocabulary.keys()
    else:  # a character outside the vocabulary falls back to its bytes, or is dropped
        has_fallback = bool(getattr(backend.model, "byte_fallback", False))
        is_whole = has_fallback and all(f"<0x{value:02X}>" in vocabulary for value in range(_NUM_BYTE_VALUES))
    return max(map(len, vocabulary)) if is_whole else None


def _steps_of(part: Any) -> list[JSONObject]:
    """The steps of a normalizer or pre-tokenizer. tokenizers 0.23 exposes them as JSON only through pickling."""
    if part is None:
        return []
    spec = json.loads(part.__getstate__())
    members = spec.get("normalizers") or spec.get("pretokenizers")
    return [spec] if members is None else list(members)


def _is_keeping(step: JSONObject) -> bool:
    kind = step["type"]
    if kind in ("Split", "Punctuation"):
        return bool(step.get("behavior") != "Removed")
    if kind == "Replace":
        pattern = step["pattern"].get("String")
        return pattern is not None and (not pattern.strip() or len(step["content"]) >= len(pattern))
    return kind in _KEEPING_STEPS or kind in _COMPOSING_STEPS
