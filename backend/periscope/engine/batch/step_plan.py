"""What the scheduler sees before a step and what it decides: frozen data, without arrays of the device.

Machines that shard one model must apply the same plan, or their collectives wait for each other for ever.
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
    """A request that is waiting, prefilling, or complete and has not joined a batch yet.

    Attributes:
        row_id: grows with the order of arrival.
        tokens: `(num_tokens,)`; the last is not prefilled, it is the first input of decoding.
        reach: tokens that its row will have room for at first, see `Row.reach`.
        checkpoints: lengths at which chunks end, so that the state can be kept there.
        is_started: it has caches, which may be empty.
        num_computed: tokens that the caches hold, without those of the chunk under way.
        num_chunk_tokens: tokens of the chunk under way; 0 = there is none.
        num_slices_left: layer slices of that chunk still to be computed.
        num_passed_over: tokens of other prompts that were prefilled since it arrived.
        num_steps_waited: decode steps since it arrived.
        unencoded: first token, and the one after the last, of each image that has not been encoded, in order.
        is_scored: the log-probabilities of all of its tokens are wanted, so that it starts from empty caches.
        is_retired: it was removed; the chunk under way is computed to its end so that the state can be kept.
        may_share_chunk: a chunk may be over its tokens and those of other prompts.
        chunk_rows: the rows whose tokens the chunk under way is over, this one included.
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
    num_steps_waited: int = 0
    unencoded: Sequence[tuple[int, int]] = ()
    is_scored: bool = False
    is_retired: bool = False
    may_share_chunk: bool = False
    chunk_rows: tuple[int, ...] = ()

    @property
    def num_left(self) -> int:
        """Tokens to prefill, those of the chunk under way included."""
        return len(self.tokens) - 1 - self.num_computed


@dataclass(frozen=True, slots=True, eq=False)
class RowView:
    """A decoding row, as the scheduler sees it.

    Attributes:
        prompt: `(num_prompt_tokens,)`.
        reach: tokens that it has room for at first, see `Row.reach`.
        num_bytes: bytes of its slot after the next step.
        num_generated: tokens of its completion.
    """

    row_id: int
    prompt: np.ndarray
    reach: int
    num_bytes: int
    num_generated: int


@dataclass(frozen=True, slots=True)
class MemoryView:
    """Bytes of the caches of one model.

    Attributes:
        room_bytes: what rows and kept states may take together.
        kept_bytes: what the prompt cache takes.
        decoding_bytes: what all batches take, retired slots included.
        growth_bytes: what the next decode step adds to the batches; 0 in nearly every step.
        drafter_bytes: what the draft model's caches take.
        has_reclaimable: there is memory to free before a row is preempted: retired slots, retired prompts, the draft
            model's caches, or tokens in flight, whose rows may have ended.
    """

    room_bytes: int
    kept_bytes: int = 0
    decoding_bytes: int = 0
    growth_bytes: int = 0
    drafter_bytes: int = 0
    has_reclaimable: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class SchedulerView:
    """All that a plan depends on, besides the timings.

    Attributes:
        prompts: in order of arrival.
        batches: the decoding rows of each batch.
        kept: the states in the prompt cache.
        exports: tokens of retired rows whose states are still being copied out of their batch.
        removed: ids of requests that were removed since the previous step.
    """

    memory: MemoryView
    prompts: Sequence[PromptView] = ()
    batches: Sequence[Sequence[RowView]] = ()
    kept: Sequence[StateView] = ()
    exports: Sequence[np.ndarray] = ()
    removed: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Start:
    """A prompt gets caches: a copy of a state trimmed to `prefix`, or empty ones."""

    row_id: int
    prefix: Prefix | None = None


@dataclass(frozen=True, slots=True)
class Encode:
    """The vision encoder is run over the image of a prompt that the token `at` belongs to."""

    row_id: int
    at: int


@dataclass(frozen=True, slots=True)
class Prefill:
    """Layer slices of one chunk of a prompt, or of several prompts that share it.

    Attributes:
        row_id: one of the prompts.
        num_tokens: its tokens in the chunk that starts here; 0 = the chunk under way continues.
        others: the other prompts of the chunk that starts here, and the tokens of each.
    """

    row_id: int
    num_slices: int
    num_tokens: int = 0
    others: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class StepPlan:
    """One step, in the order in which the executor applies it.

    Attributes:
        retires: ids of removed requests; their states are kept.
        reclaims: the tokens in flight are read, and all memory that no request needs is freed. Nothing else happens in
            such a step, because the next plan depends on what is left.
        preempts: ids of requests whose memory is freed; they wait and are prefilled again.
        finishes_exports: the states of retired rows that are being copied out are finished now.
        compacts: the slots of retired rows are removed from all batches.
        starts: prompts that get caches.
        max_kept_bytes: the prompt cache is trimmed to this; None = it fits.
        encodes: images, at most one: the vision encoder cannot be run in slices, and rows that decode wait for it.
        prefills: layer slices, in this order.
        joins: prompts that are complete and start decoding in this step.
        reads_now: the tokens that this step samples are read in it, because prompts wait and the device will prefill
            them next.
    """

    retires: tuple[int, ...] = ()
    reclaims: bool = False
    preempts: tuple[int, ...] = ()
    finishes_exports: bool = False
    compacts: bool = False
    starts: tuple[Start, ...] = ()
    max_kept_bytes: int | None = None
    encodes: tuple[Encode, ...] = ()
    prefills: tuple[Prefill, ...] = ()
    joins: tuple[int, ...] = ()
    reads_now: bool = False


#: The plan of a step with nothing to decide: every row gets a token.
DECODE_ONLY = StepPlan()
