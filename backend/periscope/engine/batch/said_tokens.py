"""SaidTokens: the penalties on tokens that have come, for all rows of a batch at once. Worker thread only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from periscope.engine.batch.arrays import with_rows
from periscope.engine.batch.penalties import Penalties

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row


class SaidTokens:
    """Owns how often each token has come in the completions of a batch's rows, as far as their penalties depend on it.

    It lives on the device and takes each row's newest token without waiting for it. A row that is new here, or has got
    tokens in another way, is counted anew from those that have been read.
    """

    def __init__(self) -> None:
        self._held: list[tuple[int, int]] = []  # of each line: the row's id, and how many tokens it counts
        self._counts: mx.array = mx.zeros((0, 0))  # (lines, vocab), float32
        self._is_in_prompt: mx.array | None = None  # (lines, vocab); None where nobody punishes repetition
        self._lines = mx.arange(0)
        # Of each line, (lines, 1); None where the setting is neutral for all of them.
        self._repetition: mx.array | None = None
        self._frequency: mx.array | None = None
        self._presence: mx.array | None = None

    def penalised(self, rows: Sequence[Row], newest: mx.array, logits: mx.array) -> mx.array:
        """Logits `(rows, vocab)` with the rows' penalties; the input, which is not changed, if none has any.

        To be called once for every token that is sampled for these rows, in order.

        Args:
            newest: `(rows,)`, each row's newest token.
        """
        indices = [index for index, row in enumerate(rows) if row.penalties is not None]
        if not indices:
            if self._held:
                self._held, self._counts, self._is_in_prompt = [], mx.zeros((0, 0)), None
            return logits
        are_all = len(indices) == len(rows)
        chosen = mx.array(indices)
        punished = [rows[index] for index in indices]
        self._count(punished, newest if are_all else newest[chosen], logits.shape[-1])
        if are_all:
            return self._with_penalties(logits)
        return with_rows(logits, chosen, self._with_penalties(logits[chosen]))

    def _count(self, rows: Sequence[Row], newest: mx.array, vocab_size: int) -> None:
        """Count the newest tokens, of those rows that have one."""
        wanted = [(row.id, max(row.num_launched - 1, 0)) for row in rows]
        if wanted != self._held:
            self._regroup(rows, wanted, vocab_size)
        have_newest = [float(row.num_launched > 0) for row in rows]
        added: mx.array | float = 1.0 if all(have_newest) else mx.array(have_newest)
        self._counts = self._counts.at[self._lines, newest].add(added)
        self._held = [(row.id, row.num_launched) for row in rows]

    def _regroup(self, rows: Sequence[Row], wanted: Sequence[tuple[int, int]], vocab_size: int) -> None:
        """Make the lines those of these rows, with so many tokens counted in each."""
        line_of = {held: line for line, held in enumerate(self._held)}
        counts = []
        for row, held in zip(rows, wanted, strict=True):
            line = line_of.get(held)
            if line is None:
                counts.append(_counted(row.tokens[len(row.prompt) :][: held[1]], vocab_size))
            else:
                counts.append(self._counts[line : line + 1])
        self._counts = mx.concatenate(counts)
        self._lines = mx.arange(len(rows))
        penalties = [row.penalties or Penalties() for row in rows]
        self._repetition = _column([each.repetition for each in penalties], neutral=1.0)
        self._frequency = _column([each.frequency for each in penalties], neutral=0.0)
        self._presence = _column([each.presence for each in penalties], neutral=0.0)
        self._is_in_prompt = None if self._repetition is None else self._prompts(rows, vocab_size)

    def _prompts(self, rows: Sequence[Row], vocab_size: int) -> mx.array:
        """Which tokens are in the rows' prompts, `(lines, vocab)`; those of rows that were here before are kept."""
        kept = self._is_in_prompt
        line_of = {} if kept is None else {row_id: line for line, (row_id, _) in enumerate(self._held)}
        lines = []
        for row in rows:
            line = line_of.get(row.id)
            if kept is None or line is None:
                lines.append(_counted(row.prompt[row.prompt >= 0], vocab_size) > 0)  # those of images are no tokens
            else:
                lines.append(kept[line : line + 1])
        return mx.concatenate(lines)

    def _with_penalties(self, logits: mx.array) -> mx.array:
        if self._repetition is not None and self._is_in_prompt is not None:
            factor = self._repetition.astype(logits.dtype)
            punished = mx.where(logits < 0, logits * factor, logits / factor)
            logits = mx.where(self._is_in_prompt | (self._counts > 0), punished, logits)
        if self._frequency is not None:
            logits = logits - (self._frequency * self._counts).astype(logits.dtype)
        if self._presence is not None:
            logits = logits - (self._presence * (self._counts > 0)).astype(logits.dtype)
        return logits


def _column(values: list[float], *, neutral: float) -> mx.array | None:
    return None if all(value == neutral for value in values) else mx.array(values)[:, None]


def _counted(token_ids: Sequence[int] | np.ndarray, vocab_size: int) -> mx.array:
    """How often each token comes, `(1, vocab)`."""
    counts = np.bincount(np.asarray(token_ids, dtype=np.int64), minlength=vocab_size)[:vocab_size]
    return mx.array(counts[None].astype(np.float32))
