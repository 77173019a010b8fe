"""Log-probabilities of a prompt's own tokens, collected while it is computed. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx

from periscope.core import TokenLogprob
from periscope.engine.batch.scores import LazyScores, reported

if TYPE_CHECKING:
    from periscope.core import TokenText
    from periscope.engine.batch.scores import Scored

#: Tokens of a prompt whose logits are turned to log-probabilities at once; bounds the float32 copies to tens of MB.
_PIECE_TOKENS = 64


class PromptLogprobs:
    """Owns the log-probabilities of one prompt's tokens while its chunks are computed."""

    def __init__(self, num_top: int) -> None:
        self._num_top = num_top
        self._scored: list[Scored] = []

    def add(self, logits: mx.array, tokens: Sequence[int]) -> None:
        """Take a chunk's logits `(num_tokens, vocab)` and the tokens that follow each of its own; blocks."""
        for start in range(0, len(tokens), _PIECE_TOKENS):
            piece = tokens[start : start + _PIECE_TOKENS]
            scores = LazyScores.of(logits[start : start + len(piece)], mx.array(list(piece)), self._num_top)
            mx.eval(scores.arrays)
            self._scored += scores.read()

    def clear(self) -> None:
        """The prompt was preempted and is computed again."""
        self._scored.clear()

    def told(self, first: int, token_text: Callable[[int], TokenText]) -> tuple[TokenLogprob, ...]:
        """All tokens of the prompt, `first` before those that were computed."""
        opening = TokenLogprob(token_text(first), None)
        return (opening, *(reported(each, self._num_top, token_text) for each in self._scored))
