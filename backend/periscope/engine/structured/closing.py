"""Structured output that is completed while there are tokens left for it.

A grammar says what may come next, not when to stop: a string without `maxLength`, an array without `maxItems` or a tree
can grow until `max_tokens` cuts it off, and JSON that is cut off is no JSON. So the shortest completion that can be
found is looked for from time to time. Near the end nothing is begun that could not be completed any more; at the end
the completion is written token by token.
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

#: Tokens to spare, beyond the completion, with which the completion is written: forced text can be taken apart worse
#: than the completion takes it.
FORCED_TOKENS = 4
#: Tokens to spare below which every token that opens something is checked: at least, and at most.
MIN_CHECKED_TOKENS, MAX_CHECKED_TOKENS = 48, 512
#: No longer completion is looked for: some milliseconds.
MAX_COMPLETION_TOKENS = 1024
#: The part of the tokens to spare that is written before the next look: the completion may grow thrice as fast.
_PART_BETWEEN_LOOKS = 4

#: Up to so many allowed tokens each is checked by itself.
_MAX_FEW = 32

_QUOTE = b'"'
_ENDS = b"}]"
#: How null begins, and how nothing of JSON does but the text of a string.
_NULL, _LETTER = b"n", b"m"
_OPENERS = b'"[{,\\'
_NOT_STRUCTURE = bytes({*range(256)} - {*b'"[]{},:\\'})
#: What is tried where text has to go on; patterns and formats ask for the first more often than for the others.
_FREQUENT = b"@.a0"
_OTHERS = bytes(code for code in range(0x20, 0x7F) if code not in b"@.a0[{")


class ClosingTokens:
    """What a vocabulary's tokens do to open strings, arrays and objects; immutable, made once and shared.

    Args:
        token_bytes: of each token id.
        eos_token_ids: which of them end a sequence.
        num_bits: in the words of a mask, a multiple of 32.
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

    def choices(self, words: NDArray[np.uint32]) -> dict[int, NDArray[np.int64]]:
        """Pure: the allowed tokens that may open something, in groups that do the same, by a number for each group.

        In a string or a number those with the same brackets, quotes and commas do the same, and those without any open
        nothing. Where only few tokens are allowed each may be the beginning of another name or value.
        """
        token_ids = np.flatnonzero(unpacked(words))
        if len(token_ids) <= _MAX_FEW:
            return {-1 - int(token_id): token_ids[index : index + 1] for index, token_id in enumerate(token_ids)}
        kinds = self._kinds[token_ids]
        return {int(kind): token_ids[kinds == kind] for kind in np.unique(kinds[kinds > 0])}

    def is_in_string(self, words: NDArray[np.uint32]) -> bool:
        """Pure: no value and no punctuation of JSON begins like that."""
        token_id = self.one_byte.get(_LETTER)
        return token_id is not None and has(words, token_id)


@dataclass(frozen=True, slots=True)
class Thoughts:
    """How reasoning before an answer ends.

    Attributes:
        end_tokens: any one of these ends it.
        spelled_start, spelled_end: its markers, where they are text and no tokens.
        end_text_tokens: `spelled_end` as tokens.
        is_open: the prompt has opened it.
    """

    end_tokens: tuple[int, ...] = ()
    spelled_start: bytes = b""
    spelled_end: bytes = b""
    end_text_tokens: tuple[int, ...] = ()
    is_open: bool = False


class Closing:
    """Owns how far one row is from a complete output. Used by the row's matcher, on its worker thread."""

    def __init__(self, tokens: ClosingTokens, thoughts: Thoughts) -> None:
        self._tokens = tokens
        self._thoughts = thoughts
        self._text = b""
        self._is_thinking = thoughts.is_open and bool(thoughts.spelled_end)
        self._look_at = math.inf
        self._completion: list[int] | None = None  # the last that was found, less what of it was written since
        self._last_length = 0
        self._num_checked = MIN_CHECKED_TOKENS
        self._lengths: dict[int, float] = {}  # of the completion after an opener; known while a string goes on
        self._is_completing = False
        self._forced: deque[int] = deque()  # what is left of the completion

    def see(self, token_id: int, text: bytes) -> None:
        """The output goes on like this. Only spelled markers of reasoning have to be watched for."""
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
        """What is allowed of `words`, so that the output will be complete after `num_left` further tokens.

        Nothing is changed while there are plenty, and where no completion is found that is short enough.
        """
        if self._is_completing:
            wanted = [self._forced.popleft()] if self._forced else self._tokens.eos_token_ids
            return _only(wanted, words)
        if num_left > self._look_at:
            return words
        completion = self._known(self._shortest(matcher, min(num_left, MAX_COMPLETION_TOKENS)))
        num_spare = num_left - (0 if completion is None else self._measured(completion))
        self._look_at = num_left - max(1, (num_spare - self._num_checked) // _PART_BETWEEN_LOOKS)
        if not completion or num_spare > self._num_checked:
            return words
        if num_spare > FORCED_TOKENS:
            return self._affordable(matcher, words, num_left - 1 - FORCED_TOKENS)
        self._is_completing = True
        self._forced.extend(completion)
        return _only([self._forced.popleft()], words)

    def _known(self, completion: list[int] | None) -> list[int] | None:
        """This, or what is left of the last, whichever is shorter."""
        if completion is None or (self._completion is not None and len(self._completion) < len(completion)):
            return self._completion
        self._completion = completion
        return completion

    def _measured(self, completion: Sequence[int]) -> int:
        """Its length; what it grows by tells how much a single token may open."""
        growth, self._last_length = len(completion) - self._last_length, len(completion)
        self._num_checked = min(max(self._num_checked, 2 * growth), MAX_CHECKED_TOKENS)
        return len(completion)

    def _affordable(self, matcher: LLMatcher, words: NDArray[np.uint32], room: int) -> NDArray[np.uint32]:
        """Without tokens after which a completion takes more than `room`."""
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
        """Of the completion; infinite if none is found."""
        ahead = matcher.deep_copy()
        ahead.consume_token(token_id)
        completion = self._shortest(ahead, MAX_CHECKED_TOKENS, enough=room)
        return math.inf if completion is None else len(completion)

    def _shortest(self, matcher: LLMatcher, max_tokens: int, *, enough: int = 0) -> list[int] | None:
        """Tokens after which the output is complete: few, if not always the fewest; None if none are found.

        Two ways are tried, if the first is not short enough: which names can be left out, a grammar does not tell.
        """
        first = self._found(matcher.deep_copy(), max_tokens, is_backward=False)
        if first is not None and len(first) <= enough:
            return first
        second = self._found(matcher.deep_copy(), max_tokens if first is None else len(first), is_backward=True)
        return first if second is None else second

    def _found(self, ahead: LLMatcher, max_tokens: int, *, is_backward: bool) -> list[int] | None:
        """One completion. Moves the matcher to its end."""
        written: list[int] = list(self._thoughts.end_text_tokens) if self._is_thinking else []
        ahead.consume_tokens(written)
        while not ahead.is_accepting():
            more = ahead.compute_ff_tokens() or self._next(ahead, len(written), is_backward=is_backward)
            if not more or len(written) + len(more) > max_tokens or not ahead.consume_tokens(more):
                return None
            written += more
        return written

    def _next(self, ahead: LLMatcher, turn: int, *, is_backward: bool) -> list[int]:
        for token_id in self._preferred(ahead, turn, is_backward=is_backward):
            if ahead.validate_tokens([token_id]):
                return [token_id]
        return [int(token_id) for token_id in np.flatnonzero(unpacked(allowed_words(ahead)))[:1]]

    def _preferred(self, ahead: LLMatcher, turn: int, *, is_backward: bool) -> Iterator[int]:
        """Tokens to be tried in turn; a letter that is allowed tells that a string is open.

        What may not end yet may need a nought (a multiple of ten), another digit (more than 0.0) or any other
        character (a pattern): they take turns.
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
    """Those of these tokens that are allowed; all that is allowed if none of them is."""
    only = np.zeros_like(words)
    for token_id in token_ids:
        only[token_id // 32] |= np.uint32(1) << np.uint32(token_id % 32)
    only &= words
    return only if only.any() else words
