"""DecodeBatches: all decoding rows of one model, in batches of rows of similar length. Worker thread only."""

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
    """Owns the decode batches of one model. A batch is dropped as soon as it has no rows.

    Args:
        new_batch: makes an empty batch.
        grouping: decides which rows share a batch.
    """

    def __init__(self, new_batch: Callable[[], DecodeBatch], grouping: Grouping) -> None:
        self._new_batch = new_batch
        self._grouping = grouping
        self._batches: list[DecodeBatch] = []

    def __len__(self) -> int:
        """Number of rows that are not retired."""
        return sum(len(batch) for batch in self._batches)

    @property
    def reaches(self) -> Sequence[Sequence[int]]:
        """`Row.reach` of the rows of each batch."""
        return [[row.reach for row in batch.rows] for batch in self._batches]

    @property
    def nbytes(self) -> int:
        """Bytes of the caches of all batches, padding included."""
        return sum(batch.nbytes for batch in self._batches)

    def add(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        """Add rows whose caches hold all of their prompt but the last token; those of one batch join at once."""
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
        """Copy out the remaining layers of retired rows now and hand their states to the prompt cache."""
        for batch in self._batches:
            batch.finish_exports()

    def retire(self, ids: Iterable[int]) -> None:
        """Stop computing these rows and keep their states. Unknown ids are ignored."""
        retired = list(ids)
        for batch in self._batches:
            batch.retire(retired)
        self._drop_empty()

    @property
    def growth_bytes(self) -> int:
        """Bytes that the next step adds to the caches; 0 in nearly every step."""
        return sum(batch.growth_bytes() for batch in self._batches)

    @property
    def has_in_flight(self) -> bool:
        """Whether the newest token of some row has been launched and not been read."""
        return any(batch.has_in_flight for batch in self._batches)

    @property
    def has_reclaimable(self) -> bool:
        """Whether reading the tokens in flight or compacting retired slots may free memory."""
        return self.has_in_flight or any(batch.num_slots > len(batch) for batch in self._batches)

    @property
    def exports(self) -> Sequence[np.ndarray]:
        """The tokens of the retired rows whose states are still being copied out."""
        return [tokens for batch in self._batches for tokens in batch.exports]

    @property
    def views(self) -> Sequence[Sequence[RowView]]:
        """The rows of each batch, as the scheduler sees them."""
        return [batch.views for batch in self._batches]

    def row(self, row_id: int) -> Row | None:
        """The row with this id, unless it is retired or not decoding."""
        return next((row for batch in self._batches for row in batch.rows if row.id == row_id), None)

    def compact(self) -> None:
        """Take out the slots of all retired rows."""
        for batch in self._batches:
            batch.compact()

    def preempt(self, ids: Collection[int]) -> list[Row]:
        """Remove rows without keeping their states, and return them. Call `read` first: nothing may be in flight."""
        preempted = [row for batch in self._batches for row in batch.preempt(ids)]
        self._drop_empty()
        return preempted

    def extract(self, row: Row) -> tuple[LayerCaches, int]:
        """A copy of a row's caches, which shares memory until one is written to, and how many tokens they hold."""
        return next(batch.extract(row) for batch in self._batches if row in batch.rows)

    def synchronize(self) -> list[Sampled]:
        """Block until the tokens in flight are computed, without reading them; fails as `step` does."""
        return self._of_each(DecodeBatch.synchronize)

    def abandon(self) -> None:
        """Drop all rows and caches, and keep no states."""
        for batch in self._batches:
            batch.abandon()
        self._batches = []

    def step(self, *, reads_now: bool = False) -> list[Sampled]:
        """One token for every row, see `DecodeBatch.step`. If a batch fails, all of its rows fail and no others do."""
        return self._of_each(DecodeBatch.step, reads_now=reads_now, are_all=len(self._batches) == 1)

    def read(self) -> list[Sampled]:
        """Block until the tokens in flight are computed and return them; fails as `step` does."""
        return self._of_each(DecodeBatch.read)

    def _of_each(self, work: Callable[..., list[Sampled]], **settings: bool) -> list[Sampled]:
        """Call `work` on every batch; a failure is the result of that batch's rows.

        `work` is no closure: the traceback of an error keeps its frames alive, and with them all that a closure
        captured.
        """
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
