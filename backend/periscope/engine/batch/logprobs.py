"""Log-probabilities of sampled tokens, computed with the sampling for those rows that ask. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import mlx.core as mx

from periscope.core import TokenLogprob
from periscope.engine.batch.scores import LazyScores, reported

if TYPE_CHECKING:
    from periscope.core import TokenText
    from periscope.engine.batch.rows import Row


@dataclass(frozen=True, slots=True)
class LazyLogprobs:
    """The log-probabilities of tokens in flight.

    Attributes:
        rows: the rows that ask, in the order of the arrays.
    """

    rows: Sequence[Row] = ()
    scores: LazyScores | None = None

    @classmethod
    def of(cls, rows: Sequence[Row], logits: mx.array, sampled: mx.array) -> LazyLogprobs:
        """From the model's own logits `(rows, vocab)`, before penalties and masks, and the sampled tokens `(rows,)`."""
        asking = [index for index, row in enumerate(rows) if row.params.logprobs and not row.is_retired]
        if not asking:
            return cls()
        indices = mx.array(asking)
        num_top = max(rows[index].params.top_logprobs for index in asking)
        return cls([rows[index] for index in asking], LazyScores.of(logits[indices], sampled[indices], num_top))

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays to evaluate with the tokens."""
        return [] if self.scores is None else self.scores.arrays

    def read(self, token_text: Callable[[int], TokenText]) -> dict[int, TokenLogprob]:
        """Log-probabilities by row id; blocks until they are computed."""
        scored = [] if self.scores is None else self.scores.read()
        return {
            row.id: reported(each, row.params.top_logprobs, token_text)
            for row, each in zip(self.rows, scored, strict=True)
        }
