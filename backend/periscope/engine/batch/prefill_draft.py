"""PrefillDraft: the part of a plan that is about prompts: which start, and which layer slices are computed. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.engine.batch.prefill import (
    SHARED_TOKENS,
    ChunkPart,
    Queued,
    chunk_tokens,
    estimated_slice_steps,
    gap_steps,
    is_burst,
    next_prompt,
    sharing,
    slices_now,
    wanted_tokens,
)
from periscope.engine.batch.sharing import (
    MIN_LIVE_TOKENS,
    Source,
    StateView,
    common_prefix,
    longest_prefix,
    waits_for_sibling,
)
from periscope.engine.batch.step_plan import Encode, Prefill, PromptView, SchedulerView, Start

if TYPE_CHECKING:
    from periscope.engine.batch.sharing import Prefix
    from periscope.engine.batch.timings import Timings

#: Up to this context length, a token is taken to cost what it does in the first chunk of a prompt; beyond, attention
#: over the context adds to it.
SHORT_CONTEXT_TOKENS = 256
#: Chunks of a prompt whose log-probabilities are wanted are not longer: all of their logits are in memory at once, for
#: a vocabulary of 150,000 tokens some 80 MB.
MAX_SCORED_TOKENS = 256


@dataclass(slots=True)
class _Chunk:
    """A chunk under way once the plan so far has been applied. `num_tokens`: of all of its prompts."""

    num_slices_left: int
    num_tokens: int = 0


@dataclass(slots=True)
class _Progress:
    """The state of a prompt once the plan so far has been applied."""

    view: PromptView
    is_started: bool
    num_computed: int
    num_chunk_tokens: int
    chunk: _Chunk | None = None

    @property
    def num_left(self) -> int:
        return len(self.view.tokens) - 1 - self.num_computed

    @property
    def faces_image(self) -> bool:
        """Whether the next token belongs to an image that has not been encoded."""
        return self.chunk is None and any(start <= self.num_computed < stop for start, stop in self.view.unencoded)

    def end_chunk(self) -> None:
        self.num_computed += self.num_chunk_tokens
        self.num_chunk_tokens, self.chunk = 0, None


def _progresses(views: Sequence[PromptView]) -> list[_Progress]:
    """The prompts as they are before the plan. Those that share a chunk share a `_Chunk`."""
    chunks: dict[tuple[int, ...], _Chunk] = {}
    progresses = []
    for view in views:
        chunk = None
        if view.num_slices_left:
            chunk = chunks.setdefault(view.chunk_rows or (view.row_id,), _Chunk(view.num_slices_left))
            chunk.num_tokens += view.num_chunk_tokens
        progresses.append(_Progress(view, view.is_started, view.num_computed, view.num_chunk_tokens, chunk))
    return progresses


class PrefillDraft:
    """Owns one step's starts and prefills while they are being planned.

    Attributes:
        starts, encodes, prefills, finishes_exports: as in `StepPlan`.
        completed: prompts that have nothing left to prefill.
        is_decoding: the prefill has to fit the gap between two decode steps, because there are decoding rows, and not
            only such as have just begun.
    """

    def __init__(
        self,
        view: SchedulerView,
        timings: Timings,
        *,
        num_slices: int,
        max_chunk_tokens: int,
        shares_chunks: bool,
        shares_live: bool,
    ) -> None:
        self.starts: list[Start] = []
        self.encodes: list[Encode] = []
        self.prefills: list[Prefill] = []
        self.completed: list[PromptView] = []
        self.finishes_exports = False
        num_generated = [row.num_generated for batch in view.batches for row in batch]
        num_left = sum(prompt.num_left for prompt in view.prompts)
        has_images = any(prompt.unencoded for prompt in view.prompts)  # how long encoding takes is not known
        left_s = math.inf if timings.token_s is None or has_images else num_left * timings.token_s
        num_steps_waited = max((prompt.num_steps_waited for prompt in view.prompts), default=0)
        self.is_decoding = any(view.batches) and not is_burst(num_generated, left_s=left_s)
        self._gap_steps = gap_steps(num_generated, num_steps_waited=num_steps_waited, left_s=left_s)
        self._view = view
        self._timings = timings
        self._num_slices = num_slices
        self._max_chunk_tokens = max_chunk_tokens
        self._shares_chunks = shares_chunks
        self._prefilling = [_state_of(prompt, prompt.num_computed) for prompt in view.prompts if prompt.is_started]
        self._live = [*self._prefilling, *_decoding_states(view)] if shares_live else []
        self._spent_steps = 0.0
        self._queue: list[_Progress] = []
        self._num_free = 0

    def finish_chunks(self, retired: Sequence[PromptView]) -> None:
        """Continue the chunks under way of removed prompts: the first, within the gap; all if no row is decoding."""
        self._queue = _progresses(self._view.prompts)
        ids = {prompt.row_id for prompt in retired}
        for progress in self._queue:
            if progress.view.row_id in ids and progress.chunk is not None:
                self._go_on(progress)
                if self.is_decoding:
                    return

    def prefill(self, startable: Sequence[PromptView], *, num_free: int) -> None:
        """Plan as many layer slices as fit between two decode steps, or one whole chunk if no row is decoding.

        Args:
            startable: waiting prompts for which there is memory, in order of arrival.
            num_free: how many of them may be started.
        """
        if num_free <= 0:
            startable = []
        views = [*(prompt for prompt in self._view.prompts if prompt.is_started), *startable]
        self._num_free = num_free
        self._queue = _progresses(sorted(views, key=lambda prompt: prompt.row_id))
        while self._spent_steps < self._gap_steps and self._queue:
            queued = [Queued(each.num_left, each.view.num_passed_over) for each in self._queue]
            progress = self._queue[next_prompt(queued)]
            if not self._start(progress):
                self._queue.remove(progress)
                continue
            if progress.num_left and not self._go_on(progress):
                return
            self._take_complete()
            if self.prefills and not self.is_decoding:
                return  # a prompt that is complete now gets its first token before the next chunk

    def _take_complete(self) -> None:
        """Move the prompts that have nothing left to prefill from the queue to `completed`."""
        complete = [each for each in self._queue if each.is_started and not each.num_left]
        self.completed += [each.view for each in complete]
        self._queue = [each for each in self._queue if each not in complete]

    def _start(self, progress: _Progress) -> bool:
        """Choose the state that a prompt starts from, if it has none; False if it has to wait.

        It waits for a free row, and for a longer prefix: when a prompt that shares more of it is prefilling, or a
        retired row that does is being copied out.
        """
        if progress.is_started:
            return True
        if len(self.starts) >= self._num_free:
            return False
        if progress.view.is_scored:
            return self._begin(progress, None)
        wanted = progress.view.tokens
        if waits_for_sibling(wanted, self._prefilling, self._view.kept):
            return False
        prefix = longest_prefix(wanted, self._view.kept, self._live)
        length = 0 if prefix is None else prefix.num_tokens
        if any(common_prefix(wanted[:-1], tokens) >= length + MIN_LIVE_TOKENS for tokens in self._view.exports):
            self.finishes_exports = True
            return False
        return self._begin(progress, prefix)

    def _begin(self, progress: _Progress, prefix: Prefix | None) -> bool:
        length = 0 if prefix is None else prefix.num_tokens
        self.starts.append(Start(progress.view.row_id, prefix))
        self._prefilling.append(_state_of(progress.view, length))
        progress.is_started, progress.num_computed = True, length
        return True

    def _go_on(self, progress: _Progress) -> bool:
        """Plan layer slices of the chunk under way, or of a new one; False if none fits.

        Before a chunk that starts with an image, the image is encoded.
        """
        if progress.faces_image:
            self._encode(progress)
            return False
        chunk = progress.chunk or _Chunk(self._num_slices)
        parts = [] if progress.chunk else [(progress, self._next_chunk(progress))]
        parts += self._sharing(*parts[0]) if parts else []
        chunk.num_tokens += sum(num for _, num in parts)
        num_slices, slice_steps = self._slices_now(progress, chunk)
        if not num_slices:
            return False
        self._spent_steps += num_slices * slice_steps
        for each, num in parts:
            each.num_chunk_tokens, each.chunk = num, chunk
        tokens = [(each.view.row_id, num) for each, num in parts]
        num_tokens = tokens[0][1] if tokens else 0
        self.prefills.append(Prefill(progress.view.row_id, num_slices, num_tokens, tuple(tokens[1:])))
        self._compute(chunk, num_slices)
        return True

    def _compute(self, chunk: _Chunk, num_slices: int) -> None:
        """Take the slices off the chunk; all of its prompts have its tokens once none is left."""
        chunk.num_slices_left -= num_slices
        if not chunk.num_slices_left:
            for each in self._queue:
                if each.chunk is chunk:
                    each.end_chunk()

    def _encode(self, progress: _Progress) -> None:
        """Plan to encode the image that is next, which is all of its step's prefill.

        Decoding rows first get the steps that they are owed for the image before.
        """
        is_owed = self.is_decoding and self._timings.encode_debt_s > 0
        if not self.prefills and not is_owed:
            self.encodes.append(Encode(progress.view.row_id, progress.num_computed))

    def _slices_now(self, progress: _Progress, chunk: _Chunk) -> tuple[int, float]:
        """How many layer slices of a chunk fit, and what each costs in decode steps."""
        if not self.is_decoding:
            return chunk.num_slices_left, math.inf
        slice_steps = self._slice_steps(progress, chunk)
        num_slices = slices_now(
            chunk.num_slices_left,
            slice_steps=slice_steps,
            spent_steps=self._spent_steps,
            most_steps=self._gap_steps,
        )
        return num_slices, math.inf if slice_steps is None else slice_steps

    def _sharing(self, first: _Progress, num_tokens: int) -> list[tuple[_Progress, int]]:
        """Prompts that share the chunk which `first` begins with `num_tokens` tokens; each is computed to its end.

        Only a chunk that is the last of its prompt is shared.
        """
        if not (self._shares_chunks and first.view.may_share_chunk and num_tokens == first.num_left):
            return []
        most: float = min(SHARED_TOKENS, self._max_chunk_tokens)
        if self.is_decoding:
            most = min(most, wanted_tokens(num_slices=self._num_slices, token_steps=self._token_steps(first)))
        others = [each for each in self._queue if each is not first and each.view.may_share_chunk and not each.chunk]
        others = [each for each in others if self._start(each) and 0 < each.num_left == self._next_chunk(each)]
        others.sort(key=lambda each: each.num_left)
        parts = [ChunkPart(each.num_left, each.num_computed) for each in (first, *others)]
        return [(others[index], others[index].num_left) for index in sharing(parts[0], parts[1:], most)]

    def _next_chunk(self, progress: _Progress) -> int:
        """Number of tokens of the next chunk, which never goes beyond the next checkpoint or unencoded image."""
        num = min(progress.num_left, self._max_chunk_tokens)
        if progress.view.is_scored:
            num = min(num, MAX_SCORED_TOKENS)
        if self.is_decoding:
            token_steps = self._token_steps(progress)
            num = chunk_tokens(progress.num_left, num, num_slices=self._num_slices, token_steps=token_steps)
        done, view = progress.num_computed, progress.view
        ends = (*view.checkpoints, *(start for start, _ in view.unencoded))
        return min([num, *(end - done for end in ends if end > done)])

    def _token_steps(self, progress: _Progress) -> float | None:
        """Cost of a token of this prompt in decode steps, as far as known from it or from others."""
        token_s = self._own_token_s(progress)
        return self._timings.in_steps(self._timings.token_s if token_s is None else token_s)

    def _slice_steps(self, progress: _Progress, chunk: _Chunk) -> float | None:
        """Cost of a layer slice in decode steps, measured or estimated from the cost of tokens; None = unknown."""
        measured_s = self._timings.slice_s.get(progress.view.row_id)
        if progress.chunk is chunk and measured_s is not None:
            return self._timings.in_steps(measured_s)
        token_s = self._own_token_s(progress)
        if token_s is None and progress.num_computed <= SHORT_CONTEXT_TOKENS:
            token_s = self._timings.token_s
        return estimated_slice_steps(
            chunk.num_tokens,
            num_slices=self._num_slices,
            token_steps=self._timings.in_steps(token_s),
        )

    def _own_token_s(self, progress: _Progress) -> float | None:
        """Seconds per token of this prompt, in the chunk under way or in the previous one; None = not measured."""
        row_id, chunk = progress.view.row_id, progress.chunk
        slice_s = self._timings.slice_s.get(row_id)
        if slice_s is not None and chunk is not None:
            return slice_s * self._num_slices / chunk.num_tokens
        return self._timings.chunk_token_s.get(row_id)


def _state_of(prompt: PromptView, num_computed: int) -> StateView:
    return StateView(Source.LIVE, prompt.row_id, prompt.tokens, num_computed)


def _decoding_states(view: SchedulerView) -> list[StateView]:
    """The prompts of decoding rows as states, without the last token, which was their first decode input."""
    return [
        StateView(Source.LIVE, row.row_id, row.prompt, len(row.prompt) - 1) for batch in view.batches for row in batch
    ]
