"""Scheduler: decides what one step of a text model's batch does. Pure: the same view and timings give the same plan.

It has no clock and no device. Time is known only through the durations of earlier steps, so that a plan made on one
machine can be applied on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from periscope.engine.batch.grouping import LONG_TOKENS
from periscope.engine.batch.prefill_draft import PrefillDraft
from periscope.engine.batch.row_memory import Holding, newest_to_preempt
from periscope.engine.batch.step_plan import PromptView, RowView, SchedulerView, StepPlan

if TYPE_CHECKING:
    from periscope.engine.batch.grouping import Grouping
    from periscope.engine.batch.timings import Timings

#: Slots are measured in steps of this many tokens, the block size of the caches.
_REACH_STEP = 256


@dataclass(frozen=True, slots=True)
class SchedulerSettings:
    """What does not change while a model is loaded.

    Attributes:
        max_rows: most requests that prefill or decode at once; more wait.
        max_chunk_tokens: most prompt tokens in one forward pass.
        num_slices: layer slices that a chunk is computed in.
        shares_chunks: a chunk may be over the tokens of several prompts.
        shares_live: a prompt may start from the state of a live request, because all caches can be trimmed.
        grouping: which rows share a batch, and how many bytes batches take.
    """

    max_rows: int
    max_chunk_tokens: int
    num_slices: int
    shares_chunks: bool
    shares_live: bool
    grouping: Grouping


class Scheduler:
    """Plans steps; holds no state but its settings."""

    def __init__(self, settings: SchedulerSettings) -> None:
        self._settings = settings

    def plan(self, view: SchedulerView, timings: Timings) -> StepPlan:
        """Plan the next step.

        Numbered cases: 1 the caches would grow beyond the room: memory is reclaimed, and if nothing can be, the newest
        requests are preempted; 2 removed prompts have a chunk under way: it goes on, so that their states can be kept;
        3 prompts are complete: they join, and nothing is prefilled; 4 prompts are started and prefilled, and those that
        are then complete join, except for long ones beside decoding rows, which join in a step of their own.
        """
        live = _without_removed(view)
        retires = tuple(sorted(view.removed))
        memory = _Memory(self._settings.grouping, live)
        if view.memory.growth_bytes and memory.needed_bytes > memory.room_bytes:  # 1
            if view.memory.has_reclaimable or retires:
                return StepPlan(retires=retires, reclaims=True)
            preempts = newest_to_preempt(memory.holdings, memory.room_bytes)
            return StepPlan(preempts=tuple(sorted(preempts)), max_kept_bytes=memory.max_kept_bytes(), reads_now=True)
        plan = self._prefill(live, timings, memory, may_start=not retires)
        return replace(plan, retires=retires)

    def _prefill(self, live: SchedulerView, timings: Timings, memory: _Memory, *, may_start: bool) -> StepPlan:
        draft = PrefillDraft(
            live,
            timings,
            num_slices=self._settings.num_slices,
            max_chunk_tokens=self._settings.max_chunk_tokens,
            shares_chunks=self._settings.shares_chunks,
            shares_live=self._settings.shares_live,
        )
        retired = [prompt for prompt in live.prompts if prompt.is_retired]
        complete = [prompt.row_id for prompt in live.prompts if _is_complete(prompt)]
        if retired:  # 2
            draft.finish_chunks(retired)
        elif complete:  # 3
            return StepPlan(joins=tuple(complete), max_kept_bytes=memory.max_kept_bytes(), reads_now=True)
        else:  # 4
            draft.prefill(self._startable(live, memory) if may_start else [], num_free=self._num_free(live))
        needed_bytes = memory.with_started([memory.reach_of(start.row_id) for start in draft.starts])
        return StepPlan(
            finishes_exports=draft.finishes_exports,
            compacts=bool(draft.starts) and needed_bytes > memory.room_bytes,
            starts=tuple(draft.starts),
            max_kept_bytes=memory.max_kept_bytes(needed_bytes),
            encodes=tuple(draft.encodes),
            prefills=tuple(draft.prefills),
            joins=_joins(draft.completed, is_decoding=draft.is_decoding),
            reads_now=bool(live.prompts),
        )

    def _num_free(self, live: SchedulerView) -> int:
        """How many prompts may be started within `max_rows`."""
        num_decoding = sum(len(batch) for batch in live.batches)
        return self._settings.max_rows - num_decoding - sum(prompt.is_started for prompt in live.prompts)

    def _startable(self, live: SchedulerView, memory: _Memory) -> Sequence[PromptView]:
        """Waiting prompts whose rows fit into memory, in order of arrival.

        Once one does not fit, those behind it wait too; else it might wait for ever. If nothing else is running, the
        first is started whether it fits or not.
        """
        startable: list[PromptView] = []
        batches = memory.batches
        for prompt in live.prompts:
            if prompt.is_started or prompt.is_retired:
                continue
            with_it = self._settings.grouping.joined(batches, [prompt.reach])
            if batches and self._settings.grouping.cache_bytes(with_it) > memory.room_bytes:
                break
            startable.append(prompt)
            batches = with_it
        return startable


class _Memory:
    """The bytes that the rows of a view take, and those reserved for the prompts that have been started.

    Attributes:
        batches: the lengths that rows have room for, by batch, as if all started prompts had joined.
        needed_bytes: bytes after the next step, reserved ones included.
    """

    def __init__(self, grouping: Grouping, live: SchedulerView) -> None:
        self.room_bytes = live.memory.room_bytes
        self._grouping = grouping
        self._live = live
        self._decoding = [[_slot_reach(row, grouping) for row in batch] for batch in live.batches]
        self._started = [prompt for prompt in live.prompts if prompt.is_started]
        self.batches = grouping.joined(self._decoding, [prompt.reach for prompt in self._started])
        memory = live.memory
        self._real_bytes = memory.decoding_bytes + memory.growth_bytes + memory.drafter_bytes
        self.needed_bytes = self._real_bytes + self._reserved_bytes(self.batches)

    def _reserved_bytes(self, batches: Sequence[Sequence[int]]) -> int:
        return self._grouping.cache_bytes(batches) - self._grouping.cache_bytes(self._decoding)

    def with_started(self, reaches: Sequence[int]) -> int:
        """`needed_bytes` if prompts of these reaches are started too."""
        if not reaches:
            return self.needed_bytes
        batches = self._grouping.joined(self.batches, reaches)
        return max(self._real_bytes + self._reserved_bytes(batches), self._grouping.cache_bytes(batches))

    def reach_of(self, row_id: int) -> int:
        return next(prompt.reach for prompt in self._live.prompts if prompt.row_id == row_id)

    def max_kept_bytes(self, needed_bytes: int | None = None) -> int | None:
        """Bytes that kept states may take if rows need `needed_bytes`; None = they take no more than that already."""
        left = max(self.room_bytes - (self.needed_bytes if needed_bytes is None else needed_bytes), 0)
        return left if self._live.memory.kept_bytes > left else None

    @property
    def holdings(self) -> list[Holding]:
        """The bytes that each request takes or has reserved."""
        holdings = [Holding(row.row_id, row.num_bytes) for batch in self._live.batches for row in batch]
        batches: list[list[int]] = [list(reaches) for reaches in self._decoding]
        for prompt in self._started:
            joined = self._grouping.joined(batches, [prompt.reach])
            num_bytes = self._grouping.cache_bytes(joined) - self._grouping.cache_bytes(batches)
            if not prompt.is_retired:
                holdings.append(Holding(prompt.row_id, num_bytes))
            batches = joined
        return holdings


def _slot_reach(row: RowView, grouping: Grouping) -> int:
    """The tokens that a row's slot has room for, which may be more than the row will ever have."""
    reach, footprint = row.reach, grouping.footprint
    while footprint.nbytes(reach) < row.num_bytes and footprint.nbytes(reach + _REACH_STEP) > footprint.nbytes(reach):
        reach += _REACH_STEP
    return reach


def _without_removed(view: SchedulerView) -> SchedulerView:
    """The view after removed requests are retired: without their rows; prompts that were started stay, as retired."""
    if not view.removed:
        return view
    prompts = [
        replace(prompt, is_retired=True) if prompt.row_id in view.removed else prompt
        for prompt in view.prompts
        if prompt.row_id not in view.removed or prompt.is_started
    ]
    batches = [[row for row in batch if row.row_id not in view.removed] for batch in view.batches]
    return replace(view, prompts=prompts, batches=[batch for batch in batches if batch], removed=frozenset())


def _is_complete(prompt: PromptView) -> bool:
    return prompt.is_started and not prompt.is_retired and prompt.num_left == 0


def _joins(completed: Sequence[PromptView], *, is_decoding: bool) -> tuple[int, ...]:
    if is_decoding and any(len(prompt.tokens) > LONG_TOKENS for prompt in completed):
        return ()
    return tuple(prompt.row_id for prompt in completed)
