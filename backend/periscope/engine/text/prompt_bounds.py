"""What a prompt may cost before it is known to fit: refused by arithmetic, then counted piece by piece.

Rendering and tokenising take time and memory in proportion to the text (tokenising 50 MB took 93 s and 9.7 GB), and a
text that cannot fit the context need not be paid for. Two bounds, from cheap to exact:

1. Arithmetic. A token stands for a limited number of characters, so a text has at least so many tokens.
2. Counting. A long text is tokenised in pieces, each forgotten at once, until the pieces alone are too many.

Only what passes both is tokenised in one go, exactly as it would be without them.
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

#: A text of up to this many characters for each token of the context is tokenised at once: most prompts that fit, in
#: any language, so that only those near or over the limit are counted first.
CHARS_PER_TOKEN_AT_ONCE: Final = 4
#: Characters of a piece. Small, because turning a piece's tokens into Python objects holds the interpreter's lock.
PIECE_CHARS: Final = 16 * 1024
#: A cut may change the tokens around it. Each piece counts for this many fewer, and all of them for one percent less,
#: so that a prompt that fits is never refused for where it was cut.
TOKENS_LOST_BY_CUT: Final = 32
_SURE_SHARE: Final = 0.99

#: Steps of a tokenizer that never make a text shorter, not counting whitespace ...
_KEEPING_STEPS = frozenset(
    {"NFD", "NFKD", "Prepend", "Strip", "ByteLevel", "Metaspace", "Whitespace", "WhitespaceSplit", "Digits"}
)
#: ... and those that may put a letter and its marks together as one character, of up to four.
_COMPOSING_STEPS = frozenset({"NFC", "NFKC"})
_MOST_COMPOSED = 4
_WHITESPACE = " \n\t\r\f\v"
_NUM_BYTE_VALUES = 256


class PromptBounds:
    """Owns what is known of one tokenizer's tokens, found out at first use. Used with the tokenizer's lock held.

    Args:
        tokenizer: mlx-lm's wrapper around the model's tokenizer.
        context_length: prompt and completion together; None = nothing is refused.
    """

    def __init__(self, tokenizer: Any, context_length: int | None) -> None:
        self._tokenizer = tokenizer
        self._context_length = context_length

    @cached_property
    def reach(self) -> int | None:
        """Characters that one token stands for, at most; None where no such number is known."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None)
        return None if backend is None else reach_of(backend)

    def check(self, texts: Iterable[str], *, num_messages: int = 0) -> None:
        """Refuse by arithmetic what cannot fit, however the template puts it.

        Args:
            texts: what certainly goes into the prompt; see `certain_texts`.
            num_messages: those that say something: a template puts marks between them, so each has a token of its own.

        Raises:
            ContextLengthExceeded: with the least number of tokens that they can have.
        """
        if self._context_length is None or self.reach is None:
            return
        num_chars = sum(map(certain_chars, texts))
        least = max(-(-num_chars // self.reach), num_messages)
        if least >= self._context_length:
            raise ContextLengthExceeded(least, self._context_length, is_lower_bound=True)

    def encode(self, encode: Callable[[str], Sequence[int]], text: str) -> tuple[int, ...]:
        """`encode(text)`, unless its pieces alone have too many tokens.

        Raises:
            ContextLengthExceeded: with the number of tokens that were counted when it was clear.
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
    """Pure: the text in order, in pieces of about `PIECE_CHARS`, cut before whitespace where there is any."""
    start = 0
    while start < len(text):
        end = start + PIECE_CHARS
        if end < len(text):
            blank = max(text.rfind(" ", start + PIECE_CHARS // 2, end), text.rfind("\n", start + PIECE_CHARS // 2, end))
            end = blank if blank > start else end
        yield text[start:end]
        start = end


def certain_texts(messages: Sequence[Message], tools: Sequence[Tool], think_end: str | None) -> Iterator[str]:
    """Pure: the parts of a chat that every template puts into the prompt.

    Left out is what templates drop by design: the reasoning of earlier turns, as a field of its own or before
    `think_end` in the content.
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
    """Names and texts of a tool's schema, which is nested no deeper than JSON on its way in may be."""
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
    """Pure: characters of a text that no template trims and no tokenizer drops, put together at their closest."""
    text = text.strip()
    num_chars = len(text) - sum(map(text.count, _WHITESPACE))
    return num_chars if text.isascii() else num_chars // _MOST_COMPOSED


def reach_of(backend: Any) -> int | None:
    """Characters that one token stands for, at most; None where a run of characters could be one token or none.

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
    else:  # a character that is in no token falls back to its bytes, or is dropped
        has_fallback = bool(getattr(backend.model, "byte_fallback", False))
        is_whole = has_fallback and all(f"<0x{value:02X}>" in vocabulary for value in range(_NUM_BYTE_VALUES))
    return max(map(len, vocabulary)) if is_whole else None


def _steps_of(part: Any) -> list[JSONObject]:
    """A normalizer or pre-tokenizer, a sequence as its members; tokenizers (0.23) tells them as JSON to pickle only."""
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
