"""A compiled grammar, and one row's place in it. Knows llguidance's matcher, and no schema, prompt or format."""

from __future__ import annotations

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
        digits: tells which tokens make numbers longer.
        max_whole_digits: of a number, before the point.
        closing: tells which tokens open and close strings, arrays and objects.
        thoughts: how reasoning before the output ends.
    """

    def __init__(
        self,
        prototype: LLMatcher,
        tokens: LLTokenizer,
        vocab_size: int,
        *,
        digits: DigitTokens,
        max_whole_digits: int,
        closing: ClosingTokens,
        thoughts: Thoughts,
    ) -> None:
        self._prototype = prototype
        self._tokens = tokens
        self._vocab_size = vocab_size
        self._digits = digits
        self._max_whole_digits = max_whole_digits
        self._closing = closing
        self._thoughts = thoughts

    def new_matcher(self) -> Matcher:
        """A matcher that has seen nothing of its completion yet; microseconds."""
        watch = NumberWatch(self._digits, self._max_whole_digits)
        closing = Closing(self._closing, self._thoughts)
        return Matcher(self._prototype.deep_copy(), self._tokens, self._vocab_size, watch, closing)


class Matcher:
    """Owns one row's place in its grammar, on the row's worker thread.

    Attributes:
        held_back: words of the tokens that the grammar allows after the last look, but the tokens left do not; None if
            there are none.
    """

    def __init__(
        self, matcher: LLMatcher, tokens: LLTokenizer, vocab_size: int, watch: NumberWatch, closing: Closing
    ) -> None:
        self._matcher = matcher
        self._tokens = tokens
        self._watch = watch
        self._closing = closing
        self.held_back: NDArray[np.uint32] | None = None
        self._num_words = num_words(vocab_size)

    def allowed_bits(self, num_left: int | None = None) -> NDArray[np.uint32]:
        """Words of the tokens that may come next: bit `t % 32` of word `t // 32` is set when token `t` is allowed.

        An end-of-sequence token is allowed once the output is complete, and nothing else when nothing can follow.

        Args:
            num_left: tokens that may still be written, this one included; None = any number.

        Raises:
            GenerationFailed: the grammar turned out too complex to go on with.
        """
        words = allowed_words(self._matcher)
        self._check()
        if len(words) < self._num_words:  # the model's vocabulary is padded beyond the tokenizer's
            words = np.concatenate([words, np.zeros(self._num_words - len(words), dtype=np.uint32)])
        words = self._watch.bounded(words[: self._num_words])
        if num_left is None:
            return words
        narrowed = self._closing.narrowed(self._matcher, words, num_left)
        self.held_back = None if narrowed is words else words & ~narrowed
        return narrowed

    def consume(self, token_id: int) -> None:
        """Take in a token the model produced after the prompt.

        Raises:
            GenerationFailed: it was not allowed, or the grammar turned out too complex.
        """
        self._matcher.consume_token(token_id)
        self._check()
        text = self._tokens.decode_bytes([token_id])
        self._watch.see(text)
        self._closing.see(token_id, text)

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GenerationFailed(
                f"The output could not be held to its schema: {explained(self._matcher.get_error())}."
            )
