"""Log-probabilities of sampled tokens, computed with the sampling for those rows that ask. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import mlx.core as mx

from periscope.core import TokenLogprob, TokenText

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row


@dataclass(frozen=True, slots=True)
class LazyLogprobs:
    """The log-probabilities of tokens in flight: lazy arrays over the rows that ask.

    Attributes:
        rows: the rows that ask, in the order of the arrays.
        tokens, chosen: `(rows, 1)`, the sampled tokens and their log-probabilities.
        top_ids, top_values: `(rows, num_top)`, unordered; None when no row asks for alternatives.
    """

    rows: Sequence[Row] = ()
    tokens: mx.array | None = None
    chosen: mx.array | None = None
    top_ids: mx.array | None = None
    top_values: mx.array | None = None

    @classmethod
    def of(cls, rows: Sequence[Row], logits: mx.array, sampled: mx.array) -> LazyLogprobs:
        """From the model's own logits `(rows, vocab)`, before penalties and masks, and the sampled tokens `(rows,)`."""
        asking = [index for index, row in enumerate(rows) if row.params.logprobs and not row.is_retired]
        if not asking:
            return cls()
        indices = mx.array(asking)
        asked = logits[indices].astype(mx.float32)
        logprobs = asked - mx.logsumexp(asked, axis=-1, keepdims=True)
        tokens = sampled[indices][:, None].astype(mx.int32)
        chosen = mx.take_along_axis(logprobs, tokens, axis=-1)
        num_top = min(max(rows[index].params.top_logprobs for index in asking), logits.shape[-1] - 1)
        ids = values = None
        if num_top:
            ids = mx.argpartition(-logprobs, num_top - 1, axis=-1)[:, :num_top]
            values = mx.take_along_axis(logprobs, ids, axis=-1)
        return cls([rows[index] for index in asking], tokens, chosen, ids, values)

    @property
    def arrays(self) -> list[mx.array]:
        """The arrays to evaluate with the tokens."""
        every = (self.tokens, self.chosen, self.top_ids, self.top_values)
        return [array for array in every if array is not None]

    def read(self, token_text: Callable[[int], TokenText]) -> dict[int, TokenLogprob]:
        """Log-probabilities by row id; blocks until they are computed."""
        if self.tokens is None or self.chosen is None:
            return {}
        tokens, chosen = _values(self.tokens), _values(self.chosen)
        nothing: list[list[float]] = [[] for _ in self.rows]
        ids = nothing if self.top_ids is None else _values(self.top_ids)
        values = nothing if self.top_values is None else _values(self.top_values)
        found = {}
        for index, row in enumerate(self.rows):
            ranked = sorted(zip(values[index], ids[index], strict=True), key=lambda pair: -pair[0])
            top = tuple((token_text(int(token)), value) for value, token in ranked[: row.params.top_logprobs])
            found[row.id] = TokenLogprob(token_text(int(tokens[index][0])), chosen[index][0], top)
        return found


def _values(array: mx.array) -> list[list[float]]:
    return cast("list[list[float]]", array.tolist())
