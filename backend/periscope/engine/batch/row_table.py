"""RowTable: the rows of one decode batch, their caches and their newest tokens. Worker thread only.

A row is added, retired, and later compacted away; its state can be extracted. Knows nothing of forward passes and
sampling.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import mlx.core as mx
import numpy as np

from periscope.engine.batch.cache_room import free_tokens, growth_bytes
from periscope.engine.batch.grouping import LONG_TOKENS
from periscope.engine.batch.row_caches import RowCaches, batch_caches
from periscope.engine.batch.sampling import GREEDY
from periscope.engine.batch.slot_caches import SlotCaches

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.rows import Row

logger = logging.getLogger(__name__)

#: Compacting copies the rows that stay. So the slots of retired rows are computed along until they are this part of all
#: slots, or for this many steps. Copying a long row takes as long as many steps, so beside one, compacting waits until
#: most slots are retired.
COMPACT_PART = 0.25
COMPACT_STEPS = 16
COMPACT_PART_OF_LONG = 0.6

#: Takes over a state: the tokens that the caches hold, the caches, and how many bytes of the batch are freed once its
#: row has been removed.
KeepState: TypeAlias = Callable[["list[int]", "LayerCaches", int], None]


class RowTable:
    """Owns the rows of one decode batch, one slot of the caches each, and their newest tokens.

    A retired row keeps its slot until the table is compacted or another row takes its place.

    Args:
        keep: called with the state of every retired row.
        keeps_states: whether to extract states at all; each costs a copy.

    Attributes:
        newest: `(slots,)`, each row's newest token, lazy; None while there are no rows.
    """

    def __init__(self, keep: KeepState, *, keeps_states: bool) -> None:
        self.newest: mx.array | None = None
        self._keep = keep
        self._keeps_states = keeps_states
        self._slots: list[Row] = []
        self._caches: RowCaches | None = None
        self._num_steps_uncompacted = 0
        self._num_free = 0.0  # a lower bound of the tokens that every row can take before an array grows
        self._exports: deque[_Export] = deque()

    def __len__(self) -> int:
        """Number of rows that are not retired."""
        return len(self.rows)

    @property
    def slots(self) -> Sequence[Row]:
        """All rows in the order of their slots, retired ones included."""
        return self._slots

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are not retired, in the order of their slots."""
        return [row for row in self._slots if not row.is_retired]

    @property
    def layers(self) -> list[Any]:
        """The caches that the model is called with, one per layer."""
        return [] if self._caches is None else self._caches.layers

    @property
    def nbytes(self) -> int:
        """Bytes of the caches, padding included."""
        return sum(int(cache.nbytes) for cache in self.layers)

    @property
    def exports(self) -> Sequence[np.ndarray]:
        """The tokens of the retired rows whose states are still being copied out."""
        return [np.asarray(export.tokens, dtype=np.int64) for export in self._exports]

    def add(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        """Add rows whose caches hold all of their prompt but the last token; free slots are used first."""
        for row, _ in joining:
            row.num_computed = len(row.tokens) - 1
        self._num_free = 0.0
        left = list(joining)
        if self._caches is not None and self._caches.can_replace:
            exported = {export.row.id for export in self._exports}
            free = [i for i, row in enumerate(self._slots) if row.is_retired and row.id not in exported]
            for index in free[: len(left)]:
                self._replace(index, *left.pop(0))
        if left:
            self._append(left)

    def _replace(self, index: int, row: Row, state: LayerCaches) -> None:
        assert self._caches is not None and self.newest is not None  # noqa: S101, PT018 - there are rows
        self._caches.replace(index, state)
        self.newest[index] = row.tokens[-1]
        self._slots[index] = row

    def _append(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        self.compact()
        states = [state for _, state in joining]
        reach = max(row.reach for row in (*self.rows, *(row for row, _ in joining)))
        if self._caches is None:
            self._caches = batch_caches(states, reach)
        elif len(self._slots) == 1:
            self._caches = batch_caches([self._caches.extract(0), *states], reach)
        else:
            self._caches.append(states)
        tokens = mx.array([row.tokens[-1] for row, _ in joining], dtype=mx.uint32)
        self.newest = tokens if self.newest is None else mx.concatenate([self.newest, tokens])
        self._slots.extend(row for row, _ in joining)

    def advance(self, newest: mx.array) -> None:
        """Note that a forward pass over one token of each row has been built, and the tokens sampled from it."""
        assert self._caches is not None  # noqa: S101 - there are rows
        self._caches.advance()
        self.newest = newest
        self._num_free -= 1

    @property
    def can_rewind(self) -> bool:
        """Whether the caches can be taken back to before a row's newest tokens; false while there are no rows."""
        return self._caches is not None and self._caches.can_rewind

    def advance_by(self, nums_kept: Sequence[int], num_computed: int) -> None:
        """Note that a forward pass over `num_computed` tokens of each row was built, of which so many stay."""
        assert self._caches is not None  # noqa: S101 - there are rows
        self._caches.advance_by(nums_kept, num_computed)
        self._num_free -= num_computed

    def growth_bytes(self, num_tokens: int) -> int:
        """Bytes that the caches grow by when every row takes `num_tokens` tokens; 0 except when arrays must grow."""
        if self._caches is None or self._num_free >= num_tokens:
            return 0
        self._num_free = free_tokens(self._caches)
        return 0 if self._num_free >= num_tokens else growth_bytes(self._caches, num_tokens)

    def extract(self, row: Row) -> tuple[LayerCaches, int]:
        """A copy of a row's caches, which shares memory until one is written to, and how many tokens they hold."""
        assert self._caches is not None  # noqa: S101 - there are rows
        return copy.deepcopy(self._caches.extract(self._slots.index(row))), row.num_computed

    def retire(self, rows: Sequence[Row]) -> None:
        """Stop computing these rows and hand their states to `keep`: short ones now, long ones layer by layer."""
        if not rows:
            return
        states = []
        for row in rows:
            row.is_retired, row.sampling, row.penalties, row.biases = True, GREEDY, None, ()
            row.matcher = row.thinking = None
            if self._keeps_states and row.fault is None and self._caches is not None:
                states += self._extract_or_export(row)
        freed_bytes = 0 if len(self) else self.nbytes
        for tokens, state in states:
            self._keep(tokens, state, freed_bytes)
        if not len(self):
            self.finish_exports()
            self.clear()

    def _extract_or_export(self, row: Row) -> list[tuple[list[int], LayerCaches]]:
        """The tokens and caches of a retired row; empty when they will be copied out layer by layer, or are lost."""
        assert self._caches is not None  # noqa: S101 - there are rows
        tokens = row.tokens[: row.num_computed]
        if len(tokens) > LONG_TOKENS and len(self) and isinstance(self._caches, SlotCaches):
            self._exports.append(_Export(row, tokens))
            return []
        try:
            return [(tokens, self._caches.extract(self._slots.index(row)))]
        except Exception as error:  # noqa: BLE001 - see `RowMemory.keep`
            _log_lost_state(error)
            return []

    def export_layer(self) -> None:
        """Copy one layer of the long row that was retired first, if there is one.

        Never raises: if the copy fails, this state is not kept.
        """
        if not self._exports:
            return
        assert isinstance(self._caches, SlotCaches)  # noqa: S101 - only their rows are exported
        export = self._exports[0]
        index = self._slots.index(export.row)
        try:
            export.state.append(self._caches.extract_layer(index, len(export.tokens), len(export.state)))
        except Exception as error:  # noqa: BLE001 - see `RowMemory.keep`
            _log_lost_state(error)
            self._exports.popleft()
            return
        if len(export.state) == self._caches.num_layers:
            self._exports.popleft()
            self._keep(export.tokens, export.state, 0)

    def finish_exports(self) -> None:
        """Copy out the remaining layers of all retired long rows now and hand over their states."""
        while self._exports:
            self.export_layer()

    def preempt(self, ids: Collection[int]) -> list[Row]:
        """Remove rows without keeping their states, so that they can be prefilled again, and return them."""
        preempted = [row for row in self.rows if row.id in ids]
        self._keep_slots([i for i, row in enumerate(self._slots) if not row.is_retired and row not in preempted])
        return preempted

    def compact(self) -> None:
        """Remove the slots of retired rows."""
        self._keep_slots([index for index, row in enumerate(self._slots) if not row.is_retired])

    def compact_if_worth_it(self) -> None:
        """Compact if enough slots are retired, or some have been for long enough. Called once per step."""
        if self._exports:
            return
        num_retired = len(self._slots) - len(self)
        self._num_steps_uncompacted = self._num_steps_uncompacted + 1 if num_retired else 0
        if not num_retired:
            return
        if any(len(row.tokens) > LONG_TOKENS for row in self.rows):
            is_worth_it = num_retired >= COMPACT_PART_OF_LONG * len(self._slots)
        else:
            is_worth_it = num_retired >= COMPACT_PART * len(self._slots)
            is_worth_it |= self._num_steps_uncompacted >= COMPACT_STEPS
        if is_worth_it:
            self.compact()

    def _keep_slots(self, stay: list[int]) -> None:
        """Reduce the table to these slots, in this order."""
        self.finish_exports()
        if len(stay) == len(self._slots):
            return
        if not stay:
            self.clear()
            return
        assert self.newest is not None and self._caches is not None  # noqa: S101, PT018 - there are rows
        if len(stay) == 1:
            self._caches = batch_caches([self._caches.extract(stay[0])], 0)
        else:
            self._caches.keep(stay)
        self._slots = [self._slots[index] for index in stay]
        self.newest = self.newest[mx.array(stay)]
        self._num_steps_uncompacted = 0
        self._num_free = 0.0

    def clear(self) -> None:
        """Drop all rows and caches, and the states that are still being copied out."""
        self._exports.clear()
        self._slots, self._caches, self.newest = [], None, None


@dataclass(slots=True)
class _Export:
    """A retired row whose state is copied out layer by layer.

    Attributes:
        tokens: those that the state holds.
        state: the layers copied so far.
    """

    row: Row
    tokens: list[int]
    state: LayerCaches = field(default_factory=list)


def _log_lost_state(error: Exception) -> None:
    logger.warning("the state of a retired row is not kept: %s: %s", type(error).__name__, str(error))
