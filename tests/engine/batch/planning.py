"""Views, timings and a scheduler with round numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from periscope.engine.batch.grouping import Grouping
from periscope.engine.batch.scheduler import Scheduler, SchedulerSettings
from periscope.engine.batch.step_plan import (
    MemoryView,
    PromptView,
    RowView,
    SchedulerView,
    StepPlan,
)
from periscope.engine.batch.timings import Timings
from periscope.engine.device.memory import KVFootprint, _Layer

#: A block of 256 tokens takes this much.
BLOCK = 256
GROUPING = Grouping(KVFootprint((_Layer(1, None, 0),)), forward_pass_bytes=2**40)
NUM_SLICES = 6
SCHEDULER = Scheduler(
    SchedulerSettings(
        max_rows=4, max_chunk_tokens=128, num_slices=NUM_SLICES, shares_chunks=True, shares_live=True, grouping=GROUPING
    )
)
#: A token of prompt takes a hundredth of a decode step, so a chunk of 128 tokens takes 1.28 steps.
TIMINGS = Timings(step_s=1.0, token_s=0.01)
UNKNOWN = Timings()
PLENTY = MemoryView(room_bytes=2**30)


def tokens(length: int, kind: int = 0) -> np.ndarray:
    return np.arange(length) + 100_000 * kind


def prompt(row_id: int, length: int = 101, **changes: Any) -> PromptView:
    """A prompt that shares no prefix with another."""
    return PromptView(row_id, tokens(length, row_id), reach=length + BLOCK, **changes)


def row(row_id: int, num_bytes: int = 2 * BLOCK, num_generated: int = 100) -> RowView:
    return RowView(row_id, tokens(20, row_id), reach=BLOCK, num_bytes=num_bytes, num_generated=num_generated)


def plan(*prompts: PromptView, timings: Timings = TIMINGS, **view: Any) -> StepPlan:
    return SCHEDULER.plan(SchedulerView(**{"memory": PLENTY, "prompts": prompts, **view}), timings)


DECODING = ((row(1),),)
