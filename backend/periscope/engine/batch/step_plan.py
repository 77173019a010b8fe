"""What the scheduler sees before a step and what it decides: frozen data, without arrays of the device.

Machines that shard one model apply the same plan, or their collectives would wait for each other for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from periscope.engine.batch.sharing import Prefix, StateView


@dataclass(frozen=True, slots=True, eq=False)
class PromptView:
    """A request that is not decoding: its prompt waits, or is prefilled, or is complete and has not joined a batch.

    Attributes:
        row_id: grows with the order of arrival.
        tokens: `(num_tokens,)`; the last is not prefilled, it is the first input of decoding.
        reach: tokens that its row will have room for at first.
        checkpoints: lengths at which chunks end, so that the state can be kept there.
        is_started: it holds caches, which may be empty.
        num_computed: tokens that the caches hold, without those of the chunk under way.
        num_chunk_tokens: of the chunk under way; 0 = there is none.
        num_slices_left: layer slices of that chunk.
        num_passed_over: tokens prefilled of other prompts since it came.
        is_retired: it was removed; the chunk under way is computed to its end so that the state can be kept.
    """

    row_id: int
    tokens: np.ndarray
    reach: int
    checkpoints: Sequence[int] = ()
    is_started: bool = False
    num_computed: int = 0
    num_chunk_tokens: int = 0
    num_slices_left: int = 0
    num_passed_over: int = 0
    is_retired: bool = False

    @property
    def num_left(self) -> int:
        """Tokens to prefill, those of the chunk under way included."""
        return len(self.tokens) - 1 - self.num_computed


@dataclass(frozen=True, slots=True, eq=False)
class RowView:
    """A decoding row.

    Attributes:
        prompt: `(num_prompt_tokens,)`.
        reach: tokens that it has room for at first.
        num_bytes: what its slot of its batch takes after the next step.
    """

    row_id: int
    prompt: np.ndarray
    reach: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Bytes of the caches of one model.

    Attributes:
        room_bytes: that rows and kept states may take together.
        kept_bytes: of the prompt cache.
        decoding_bytes: of all batches, retired slots included.
        growth_bytes: that the next decode step adds to the batches; 0 for nearly every step.
        drafter_bytes: of the draft model's caches.
        has_reclaimable: retired slots, retired prompts, tokens in flight (their rows may have ended) or a draft
            model's caches are there to be given up before a row is preempted.
    """

    room_bytes: int
    kept_bytes: int = 0
    decoding_bytes: int = 0
    growth_bytes: int = 0
    drafter_bytes: int = 0
    has_reclaimable: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SchedulerView:
    """All that a plan rests on, with the timings.

    Attributes:
        prompts: in order of arrival.
        batches: the decoding rows of each batch.
        kept: the states in the prompt cache.
        exports: tokens of retired rows whose states are still being copied out of their batch.
        removed: ids of requests that were removed since the step before.
    """

    memory: MemoryView
    prompts: Sequence[PromptView] = ()
    batches: Sequence[Sequence[RowView]] = ()
    kept: Sequence[StateView] = ()
    exports: Sequence[np.ndarray] = ()
    removed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Start:
    """A prompt gets caches: a copy of a state's prefix, or empty ones."""

    row_id: int
    prefix: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Prefill:
    """Layer slices of one chunk of a prompt.

    Attributes:
        num_tokens: of the chunk that begins here; 0 = the chunk under way goes on.
    """

    row_id: int
    num_slices: int
    num_tokens: int = 0


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, in the order in which the executor applies it.

    Attributes:
        retires: ids of removed requests; what was computed of them is kept.
        reclaims: the tokens in flight are read, and all memory that no request needs is given up. Nothing else happens
            in such a step: what follows rests on what is left then.
        preempts: ids of requests that give up their memory and wait again.
        finishes_exports: the states of retired rows are copied out at once.
        compacts: slots of retired rows are taken out of all batches.
        starts: prompts that get caches.
        max_kept_bytes: the prompt cache is trimmed to this; None = it fits.
        prefills: layer slices, in this order.
        joins: prompts that are complete and start decoding in this step.
        reads_now: the tokens that this step samples are read in it, because prompts wait and the device will soon do
            something else.
    """

    retires: tuple[int, ...] = ()
    reclaims: bool = False
    preempts: tuple[int, ...] = ()
    finishes_exports: bool = False
    compacts: bool = False
    starts: tuple[Start, ...] = ()
    max_kept_bytes: int | None = None
    prefills: tuple[Prefill, ...] = ()
    joins: tuple[int, ...] = ()
    reads_now: bool = False


#: A step in which nothing is to be decided: every row gets a token.
DECODE_ONLY = StepPlan()
