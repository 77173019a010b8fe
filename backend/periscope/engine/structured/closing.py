"""Completes structured output before `max_tokens` cuts it off.

A grammar says what may come next, not when to stop: a string without `maxLength`, an array without `maxItems` or a tree
can grow until `max_tokens` truncates it, and truncated JSON is invalid. So a short completion is searched for from time
to time. When few tokens are left, tokens are masked that open more than could still be closed. In the end the
completion is forced token by token.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from periscope.engine.structured.token_bits import allowed_words, has, unpacked

if TYPE_CHECKING:
    from llguidance import LLMatcher
    from numpy.typing import NDArray

#: The completion is forced once no more than this many tokens are left beyond it. A reserve, because forced text may
#: tokenise into more tokens than the completion has.
FORCED_TOKENS = 4
#: Every token that opens something is checked once fewer spare tokens than this are left: the least and greatest value.
MIN_CHECKED_TOKENS, MAX_CHECKED_TOKENS = 48, 512
#: The longest completion that is searched for, which takes some milliseconds.
MAX_COMPLETION_TOKENS = 1024
#: The next search comes after a fourth of the spare tokens. The completion may grow by three tokens for each of them.
_PART_BETWEEN_LOOKS = 4

#: If at most so many tokens are allowed, each is checked individually.
_MAX_FEW = 32

_QUOTE = b'"'
_ENDS = b"}]"
#: The first byte of `null`, and a byte that is allowed only inside strings.
_NULL, _LETTER = b"n", b"m"
_OPENERS = b'"[{,\\'
_NOT_STRUCTURE = bytes({*range(256)} - {*b'"[]{},:\\'})
#: Bytes that are tried where a string must go on, those first that patterns and formats require most often.
_FREQUENT = b"@.a0"
_OTHERS = bytes(code for code in range(0x20, 0x7F) if code not in b"@.a0[{")


class ClosingTokens:
    """Which tokens of a vocabulary open or close strings, arrays and objects. Immutable, made once and shared.

    Args:
        token_bytes: the bytes of each token id.
        eos_token_ids: the end-of-sequence tokens.
        num_bits: number of bits in a mask, a multiple of 32.
    """

    def __init__(self, token_bytes: Sequence[bytes], eos_token_ids: Sequence[int], num_bits: int) -> None:
        self.eos_token_ids = eos_token_ids
        self.one_byte: dict[bytes, int] = {}
        self._kinds = np.zeros(num_bits, dtype=np.int32)
        kinds: dict[bytes, int] = {}
        for token_id, text in enumerate(token_bytes):
            if len(text) == 1:
                self.one_byte.setdefault(text, token_id)
            if any(byte in _OPENERS for byte in text):
                structure = text.translate(None, _NOT_STRUCTURE)
                self._kinds[token_id] = kinds.setdefault(structure, len(kinds) + 1)

    def spelled(self, text: bytes) -> list[int]:
        """The text in tokens of one byte each; empty if the vocabulary lacks one of them."""
        ids = [self.one_byte.get(byte) for byte in _bytes_of(text)]
        return [] if None in ids else [token_id for token_id in ids if token_id is not None]

    def choices(self, words: NDArray[np.uint32]) -> dict[int, NDArray[np.int64]]:
        """Pure: the allowed tokens that may open something, in groups of equal effect, by the number of the group.

        Inside a string or number, tokens with the same brackets, quotes and commas have the same effect, and those
        without any open nothing. If few tokens are allowed, each may start another name or value and is its own group.
        """
        token_ids = np.flatnonzero(unpacked(words))
        if len(token_ids) <= _MAX_FEW:
            return {-1 - int(token_id): token_ids[index : index + 1] for index, token_id in enumerate(token_ids)}
        kinds = self._kinds[token_ids]
        return {int(kind): token_ids[kinds == kind] for kind in np.unique(kinds[kinds > 0])}

    def is_in_string(self, words: NDArray[np.uint32]) -> bool:
        """Pure: whether a string is open, told by a letter that is allowed only inside strings."""
        token_id = self.one_byte.get(_LETTER)
        return token_id is not None and has(words, token_id)


@dataclass(frozen=True, slots=True)
class Thoughts:
    """How the reasoning before an answer ends.

    Attributes:
        end_tokens: any one of these tokens ends it.
        spelled_start, spelled_end: its markers, if they are text and not special tokens.
        end_text_tokens: the tokens of `spelled_end`.
        is_open: whether the prompt has opened it.
    """

    end_tokens: tuple[int, ...] = ()
    spelled_start: bytes = b""
    spelled_end: bytes = b""
    end_text_tokens: tuple[int, ...] = ()
    is_open: bool = False


class Closing:
    """Owns one row's distance from a complete output. Used by the row's matcher, on its worker thread.

    Args:
        fragments: texts that may complete a string that cannot end yet; each is tried as a whole.

    Attributes:
        is_completing: the completion is being forced, token by token.
    """

    def __init__(self, tokens: ClosingTokens, thoughts: Thoughts, fragments: Sequence[bytes] = ()) -> None:
        self._tokens = tokens
        self._thoughts = thoughts
        self._fragments = [ids for text in fragments if (ids := tokens.spelled(text + _QUOTE))]
        self._text = b""
        self._is_thinking = thoughts.is_open and bool(thoughts.spelled_end)
        self._look_at = math.inf
        self._completion: list[int] | None = None  # the latest found, without the tokens of it that were written since
        self._last_length = 0
        self._num_checked = MIN_CHECKED_TOKENS
        self._lengths: dict[int, float] = {}  # of the completion after a token, by its group; valid inside one string
        self.is_completing = False
        self._forced: deque[int] = deque()  # tokens of the completion that are still to be forced

    def see(self, token_id: int, text: bytes) -> None:
        """Record a token of the output. Tracks the known completion and reasoning markers that are text."""
        goes_on = self._completion is not None and self._completion[:1] == [token_id]
        self._completion = self._completion[1:] if self._completion is not None and goes_on else None
        thoughts = self._thoughts
        if not thoughts.spelled_end:
            return
        is_begin = len(self._text) < len(thoughts.spelled_start) + 8
        self._text = self._text + text if is_begin else (self._text + text)[-256:]
        if is_begin and thoughts.spelled_start and self._text.lstrip().startswith(thoughts.spelled_start):
            self._is_thinking = True
        if thoughts.spelled_end in self._text:
            self._is_thinking = False

    def narrowed(self, matcher: LLMatcher, words: NDArray[np.uint32], num_left: int) -> NDArray[np.uint32]:
        """Return the mask `words`, restricted so that the output is complete after `num_left` further tokens.

        Returns `words` itself while many tokens are left, or if no completion is found that is short enough.
        """
        if self.is_completing:
            wanted = [self._forced.popleft()] if self._forced else self._tokens.eos_token_ids
            return _only(wanted, words)
        if num_left > self._look_at:
            return words
        completion = self._known(self.shortest(matcher, min(num_left, MAX_COMPLETION_TOKENS)))
        num_spare = num_left - (0 if completion is None else self._measured(completion))
        self._look_at = num_left - max(1, (num_spare - self._num_checked) // _PART_BETWEEN_LOOKS)
        if not completion or num_spare > self._num_checked:
            return words
        if num_spare > FORCED_TOKENS:
            return self._affordable(matcher, words, num_left - 1 - FORCED_TOKENS)
        self.is_completing = True
        self._forced.extend(completion)
        return _only([self._forced.popleft()], words)

    def _known(self, completion: list[int] | None) -> list[int] | None:
        """The shorter one of this completion and the rest of the previous one; remembers it."""
        if completion is None or (self._completion is not None and len(self._completion) < len(completion)):
            return self._completion
        self._completion = completion
        return completion

    def _measured(self, completion: Sequence[int]) -> int:
        """Length of the completion. Its growth since the last search sets the number of tokens to be checked."""
        growth, self._last_length = len(completion) - self._last_length, len(completion)
        self._num_checked = min(max(self._num_checked, 2 * growth), MAX_CHECKED_TOKENS)
        return len(completion)

    def _affordable(self, matcher: LLMatcher, words: NDArray[np.uint32], room: int) -> NDArray[np.uint32]:
        """Mask the tokens after which the completion takes more than `room` tokens."""
        choices = self._tokens.choices(words)
        if len(choices) == 1:
            return words
        if not self._tokens.is_in_string(words):
            self._lengths.clear()
        rest = words.copy()
        for kind, token_ids in choices.items():
            if kind not in self._lengths:
                self._lengths[kind] = self._length_after(matcher, int(token_ids[0]), room)
            if self._lengths[kind] > room:
                np.bitwise_and.at(rest, token_ids // 32, ~(np.uint32(1) << (token_ids % 32).astype(np.uint32)))
        return rest if rest.any() else words

    def _length_after(self, matcher: LLMatcher, token_id: int, room: int) -> float:
        """Length of the completion after this token; infinite if none is found."""
        ahead = matcher.deep_copy()
        ahead.consume_token(token_id)
        completion = self.shortest(ahead, MAX_CHECKED_TOKENS, enough=room)
        return math.inf if completion is None else len(completion)

    def shortest(self, matcher: LLMatcher, max_tokens: int, *, enough: int = 0) -> list[int] | None:
        """Search for a short completion, not necessarily the shortest; None if none is found.

        If the first search finds more than `enough` tokens, a second one tries tokens in another order, because a
        grammar does not tell which properties can be left out.
        """
        first = self._found(matcher.deep_copy(), max_tokens, is_backward=False)
        if first is not None and len(first) <= enough:
            return first
        second = self._found(matcher.deep_copy(), max_tokens if first is None else len(first), is_backward=True)
        return first if second is None else second

    def _found(self, ahead: LLMatcher, max_tokens: int, *, is_backward: bool) -> list[int] | None:
        """Search greedily for one completion. Advances the matcher."""
        written: list[int] = list(self._thoughts.end_text_tokens) if self._is_thinking else []
        ahead.consume_tokens(written)
        while not ahead.is_accepting():
            more = ahead.compute_ff_tokens() or self._next(ahead, len(written), is_backward=is_backward)
            if not more or len(written) + len(more) > max_tokens or not ahead.consume_tokens(more):
                return None
            written += more
        return written

    def _next(self, ahead: LLMatcher, turn: int, *, is_backward: bool) -> list[int]:
        if self._fragments and not ahead.validate_tokens(self._fragments[0][-1:]):
            for fragment in self._fragments:
                if ahead.validate_tokens(fragment) == len(fragment):
                    return fragment
        for token_id in self._preferred(ahead, turn, is_backward=is_backward):
            if ahead.validate_tokens([token_id]):
                return [token_id]
        return [int(token_id) for token_id in np.flatnonzero(unpacked(allowed_words(ahead)))[:1]]

    def _preferred(self, ahead: LLMatcher, turn: int, *, is_backward: bool) -> Iterator[int]:
        """Yield tokens in the order in which they are tried. An allowed letter means that a string is open.

        A value that may not end yet may need a zero (a multiple of ten), another digit (more than 0.0) or any other
        character (a pattern), so these alternate with `turn`.
        """
        one_byte = self._tokens.one_byte
        yield from self._thoughts.end_tokens
        letter = one_byte.get(_LETTER)
        if letter is not None and ahead.validate_tokens([letter]):
            half = turn // 2
            kinds = [_rotated(_FREQUENT, half), _rotated(_OTHERS, half)]
            texts = _QUOTE + b"".join(kinds if turn % 2 == 0 else kinds[::-1])
        else:
            digits = b"10" if turn % 2 else b"01"
            others = _FREQUENT + _OTHERS
            texts = _ENDS + _NULL + _QUOTE + b"," + (others[::-1] if is_backward else digits + others)
        yield from (one_byte[text] for text in _bytes_of(texts + b"[{") if text in one_byte)


def _rotated(text: bytes, start: int) -> bytes:
    start %= len(text)
    return text[start:] + text[:start]


def _bytes_of(text: bytes) -> Iterator[bytes]:
    return (text[index : index + 1] for index in range(len(text)))


def _only(token_ids: Sequence[int], words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Restrict a mask to these tokens; the mask itself if none of them is allowed."""
    only = np.zeros_like(words)
    for token_id in token_ids:
        only[token_id // 32] |= np.uint32(1) << np.uint32(token_id % 32)
    only &= words
    return only if only.any() else words
