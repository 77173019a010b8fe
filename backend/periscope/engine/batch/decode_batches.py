"""DecodeBatches: all rows past their prompt, in batches of rows of similar length. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np

from periscope.engine.batch.decode_batch import DecodeBatch
from periscope.engine.batch.step_plan import RowView
from periscope.engine.worker.contracts import Sampled

if TYPE_CHECKING:
    from periscope.engine.batch.grouping import Grouping
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.rows import Row


class DecodeBatches:
    """Owns the batches; one is there as long as it has rows.

    Args:
        new_batch: an empty one.
        grouping: says which rows share one.
    """

    def __init__(self, new_batch: Callable[[], DecodeBatch], grouping: Grouping) -> None:
        self._new_batch = new_batch
        self._grouping = grouping
        self._batches: list[DecodeBatch] = []

    def __len__(self) -> int:
        """Rows that are not retired."""
        return sum(len(batch) for batch in self._batches)

    @property
    def reaches(self) -> Sequence[Sequence[int]]:
        """The tokens that the rows of each batch have room for."""
        return [[row.reach for row in batch.rows] for batch in self._batches]

    @property
    def nbytes(self) -> int:
        """What the caches take, padding included."""
        return sum(batch.nbytes for batch in self._batches)

    def add(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        """Rows whose caches hold all of their prompt but the last token; those of one batch join it together."""
        reaches = [list(batch) for batch in self.reaches]
        parts: list[list[tuple[Row, LayerCaches]]] = [[] for _ in reaches]
        for row, caches in joining:
            index = self._grouping.place(row.reach, reaches)
            if index == len(reaches):
                reaches.append([])
                parts.append([])
                self._batches.append(self._new_batch())
            reaches[index].append(row.reach)
            parts[index].append((row, caches))
        for batch, part in zip(self._batches, parts, strict=True):
            if part:
                batch.add(part)

    def finish_exports(self) -> None:
        """Hand over the states of retired rows, without waiting any longer."""
        for batch in self._batches:
            batch.finish_exports()

    def retire(self, ids: Iterable[int]) -> None:
        """Nothing more is computed for these rows; their states are kept. Unknown ids are ignored."""
        retired = list(ids)
        for batch in self._batches:
            batch.retire(retired)
        self._drop_empty()

    @property
    def growth_bytes(self) -> int:
        """What the next step adds to the caches; 0 for nearly every step."""
        return sum(batch.growth_bytes() for batch in self._batches)

    @property
    def has_reclaimable(self) -> bool:
        """Slots of retired rows, or tokens in flight: their rows may have ended."""
        return any(batch.has_in_flight or batch.num_slots > len(batch) for batch in self._batches)

    @property
    def exports(self) -> Sequence[np.ndarray]:
        """The tokens of the retired rows whose states are still being copied out."""
        return [tokens for batch in self._batches for tokens in batch.exports]

    @property
    def views(self) -> Sequence[Sequence[RowView]]:
        """What the scheduler sees: the rows of each batch."""
        return [batch.views for batch in self._batches]

    def row(self, row_id: int) -> Row | None:
        """The row of this id that is not retired."""
        return next((row for batch in self._batches for row in batch.rows if row.id == row_id), None)

    def compact(self) -> None:
        """Take out the slots of all retired rows."""
        for batch in self._batches:
            batch.compact()

    def preempt(self, ids: Collection[int]) -> list[Row]:
        """Take rows out without keeping their states; nothing may be in flight, see `read`."""
        preempted = [row for batch in self._batches for row in batch.preempt(ids)]
        self._drop_empty()
        return preempted

    def extract(self, row: Row) -> tuple[LayerCaches, int]:
        """A copy of a row's caches, and how many tokens they hold. Shares memory until written to."""
        return next(batch.extract(row) for batch in self._batches if row in batch.rows)

    def settle(self) -> list[Sampled]:
        """Block until the tokens in flight are there; fails as `step`."""
        return self._of_each(DecodeBatch.settle)

    def abandon(self) -> None:
        """Let go of everything."""
        for batch in self._batches:
            batch.abandon()
        self._batches = []

    def step(self, *, reads_now: bool = False) -> list[Sampled]:
        """A token for every row, see `DecodeBatch.step`. A batch whose step fails loses its rows, and no others."""
        return self._of_each(DecodeBatch.step, reads_now=reads_now, may_speculate=len(self._batches) == 1)

    def read(self) -> list[Sampled]:
        """The tokens in flight of all batches; fails as `step`."""
        return self._of_each(DecodeBatch.read)

    def _of_each(self, work: Callable[..., list[Sampled]], **settings: bool) -> list[Sampled]:
        """No closure is called here: the frames of an error keep functions, and functions what they enclose."""
        results = []
        for batch in self._batches:
            try:
                results += work(batch, **settings)
            except Exception as error:  # noqa: BLE001 - whatever the model or the device says
                results += batch.abandon(error)
                mx.clear_cache()
        self._drop_empty()
        return results

    def _drop_empty(self) -> None:
        self._batches = [batch for batch in self._batches if len(batch)]
