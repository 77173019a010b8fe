"""A compiled grammar, and one row's state in it. Knows llguidance's matcher, but no schema, prompt or format."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from periscope.engine.structured.closing import Closing, ClosingTokens, Thoughts
from periscope.engine.structured.grammar_errors import explained
from periscope.engine.structured.number_bounds import DigitTokens, NumberWatch
from periscope.engine.structured.token_bits import allowed_words, num_words
from periscope.errors import GenerationFailed


class Grammar:
    """A compiled grammar: immutable, usable from any thread, shared between rows.

    Args:
        digits: which tokens make numbers longer.
        max_whole_digits: the most digits of a number before the point; None = numbers are as long as the grammar says.
        closing: which tokens open and close strings, arrays and objects.
        thoughts: how reasoning before the output ends.
        fragments: texts that may complete strings; see `fragments`.
    """

    def __init__(
        self,
        prototype: LLMatcher,
        tokens: LLTokenizer,
        vocab_size: int,
        *,
        digits: DigitTokens,
        max_whole_digits: int | None,
        closing: ClosingTokens,
        thoughts: Thoughts,
        fragments: Sequence[bytes] = (),
    ) -> None:
        self._prototype = prototype
        self._tokens = tokens
        self._vocab_size = vocab_size
        self._digits = digits
        self._max_whole_digits = max_whole_digits
        self._closing = closing
        self._thoughts = thoughts
        self._fragments = fragments

    def new_matcher(self) -> Matcher:
        """Return a matcher at the start of a completion. Takes microseconds."""
        most = self._max_whole_digits
        watch = None if most is None else NumberWatch(self._digits, most)
        closing = Closing(self._closing, self._thoughts, self._fragments)
        return Matcher(self._prototype.deep_copy(), self._tokens, self._vocab_size, watch, closing)


class Matcher:
    """Owns one row's state in its grammar. Used on the row's worker thread only.

    Attributes:
        excluded_bits: mask of the tokens that the grammar allows but that the last `allowed_bits` left out, because too
            few tokens remain to complete the output after them; None if there are none.
    """

    def __init__(
        self, matcher: LLMatcher, tokens: LLTokenizer, vocab_size: int, watch: NumberWatch | None, closing: Closing
    ) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._watch = watch
        self._closing = closing
        self.excluded_bits: NDArray[np.uint32] | None = None
        self._num_words = num_words(vocab_size)

    def allowed_bits(self, num_left: int | None = None) -> NDArray[np.uint32]:
        """The mask of tokens that may come next: bit `t % 32` of word `t // 32` is set when token `t` is allowed.

        End-of-sequence tokens are allowed once the output is complete, and are the only ones if nothing can follow.

        Args:
            num_left: tokens that may still be generated, including this one; None = unlimited.

        Raises:
            GenerationFailed: the grammar has exceeded the limits of complexity.
        """
        words = allowed_words(self._matcher)
        self._check()
        if len(words) < self._num_words:  # the model's vocabulary is padded beyond the tokenizer's
            words = np.concatenate([words, np.zeros(self._num_words - len(words), dtype=np.uint32)])
        words = words[: self._num_words]
        if self._watch is not None:
            words = self._watch.bounded(words)
        if num_left is None:
            return words
        narrowed = self._closing.narrowed(self._matcher, words, num_left)
        self.excluded_bits = None if narrowed is words else words & ~narrowed
        return narrowed

    def consume(self, token_id: int) -> None:
        """Advance by a token that the model has generated.

        Raises:
            GenerationFailed: the token was not allowed, or the grammar has exceeded the limits of complexity.
        """
        self._matcher.consume_token(token_id)
        self._check()
        text = self._tokens.decode_bytes([token_id])
        if self._watch is not None:
            self._watch.see(text)
        self._closing.see(token_id, text)

    def num_accepted(self, token_ids: Sequence[int]) -> int:
        """How many of these tokens may come next, one after the other; 0 once the output is being completed."""
        return 0 if self._closing.is_completing else int(self._matcher.validate_tokens(list(token_ids)))

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GenerationFailed(
                f"The output could not be constrained to its schema: {explained(self._matcher.get_error())}."
            )
