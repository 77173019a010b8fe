"""Executor: applies the plan of each step to the prompts and rows of one text model. Worker thread only.

It decides nothing: the plan says what is prefilled, joined, retired and preempted. It measures how long steps take, for
later plans.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm.models.cache import trim_prompt_cache

from periscope.engine.batch.prompt import Prompt, start_chunk, start_shared_chunk
from periscope.engine.batch.sharing import Prefix, Source
from periscope.engine.batch.slot_caches import reserve
from periscope.engine.batch.step_plan import MemoryView, SchedulerView
from periscope.engine.batch.timings import Measurements, Timings
from periscope.engine.device.memory import BLOCK_TOKENS
from periscope.engine.worker.contracts import Sampled

if TYPE_CHECKING:
    from periscope.engine.batch.chunk import Chunk
    from periscope.engine.batch.decode_batches import DecodeBatches
    from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
    from periscope.engine.batch.row_memory import RowMemory
    from periscope.engine.batch.rows import Row
    from periscope.engine.batch.speculation import Drafter
    from periscope.engine.batch.step_plan import Encode, Prefill, Start, StepPlan

logger = logging.getLogger(__name__)


class Executor:
    """Owns the waiting and prefilling prompts and the measurements; applies plans to them and to the decode batches.

    Args:
        new_caches: makes the empty caches of a row.

    Attributes:
        decoding: the decoding rows.
        prompts: requests that are waiting or prefilling, in order of arrival.
    """

    def __init__(
        self,
        model: Any,
        decoding: DecodeBatches,
        prompt_cache: PromptCache,
        memory: RowMemory,
        *,
        new_caches: Callable[[], LayerCaches],
        drafter: Drafter | None,
        clock: Callable[[], float],
    ) -> None:
        self.decoding = decoding
        self.prompts: list[Prompt] = []
        self._model = model
        self._prompt_cache = prompt_cache
        self._memory = memory
        self._new_caches = new_caches
        self._drafter = drafter
        self._clock = clock
        self.num_preemptions = 0
        self._retired: list[Prompt] = []  # removed, with a chunk under way
        self._measurements = Measurements()
        self._none_in_flight = True  # nothing was in flight after the previous step

    @property
    def has_work(self) -> bool:
        """Whether a step has something to do, if only for requests that have been removed."""
        return bool(self.prompts or self._retired or len(self.decoding))

    @property
    def has_prompts(self) -> bool:
        """Whether some requests, removed ones included, are waiting or prefilling."""
        return bool(self.prompts or self._retired)

    @property
    def rows_bytes(self) -> int:
        """Bytes of all requests' caches now, those of removed requests and of the draft model included."""
        prefilling = sum(prompt.nbytes for prompt in (*self.prompts, *self._retired))
        return prefilling + self.decoding.nbytes + self._drafter_bytes

    @property
    def _drafter_bytes(self) -> int:
        return 0 if self._drafter is None else self._drafter.nbytes

    def view(self, removed: Iterable[int]) -> SchedulerView:
        """All that the next plan depends on, besides the timings.

        Args:
            removed: ids of requests that were removed since the previous step.
        """
        prompts = [*(prompt.view() for prompt in self.prompts), *(each.view(is_retired=True) for each in self._retired)]
        return SchedulerView(
            self._memory_view(),
            prompts=sorted(prompts, key=lambda prompt: prompt.row_id),
            batches=self.decoding.views,
            kept=self._prompt_cache.states if self.prompts else (),
            exports=self.decoding.exports,
            removed=frozenset(removed),
        )

    def _memory_view(self) -> MemoryView:
        return MemoryView(
            room_bytes=self._memory.room_bytes(self.rows_bytes),
            kept_bytes=self._prompt_cache.nbytes,
            decoding_bytes=self.decoding.nbytes,
            growth_bytes=self.decoding.growth_bytes,
            drafter_bytes=self._drafter_bytes,
            has_reclaimable=bool(self._retired or self._drafter_bytes or self.decoding.has_reclaimable),
        )

    @property
    def timings(self) -> Timings:
        """How long earlier steps took."""
        prompts = (*self.prompts, *self._retired)
        chunk_token_s = {prompt.row.id: prompt.token_s for prompt in prompts if prompt.token_s is not None}
        slice_s = {prompt.row.id: prompt.slice_s for prompt in prompts if prompt.slice_s is not None}
        return self._measurements.timings(chunk_token_s, slice_s)

    def apply(self, plan: StepPlan) -> list[Sampled]:
        """Run one step. Returns a token for every decoding row, and the requests that failed."""
        self._retire(plan.retires)
        if plan.reclaims:
            return self._reclaim()
        if plan.preempts:
            self._preempt(plan.preempts)
        if plan.finishes_exports:
            self.decoding.finish_exports()
        if plan.compacts:
            self.decoding.compact()
        results = self._of_prompts(self._start, plan.starts)
        if plan.max_kept_bytes is not None:
            self._prompt_cache.trim_to(plan.max_kept_bytes)
        if plan.encodes or plan.prefills:
            results += self.decoding.synchronize()  # so that steps and slices are timed separately
            results += self._of_prompts(self._encode, plan.encodes)
            results += self._of_prompts(self._prefill, plan.prefills)
        if plan.joins:
            self._join(plan.joins)
        return results + self._decode(reads_now=plan.reads_now)

    def _retire(self, ids: Sequence[int]) -> None:
        """Retire removed requests. Their states are kept, for those with a chunk under way once it is computed."""
        if not ids:
            return
        retired = [prompt for prompt in self.prompts if prompt.row.id in ids]
        self.prompts = [prompt for prompt in self.prompts if prompt not in retired]
        self._retired += [prompt for prompt in retired if prompt.caches is not None]
        self.decoding.retire(ids)
        for prompt in retired:
            if prompt.caches is not None and not prompt.num_slices_left:
                self._keep_retired(prompt)

    def _keep_retired(self, prompt: Prompt) -> None:
        self.keep(prompt.row.tokens[: prompt.num_computed], prompt.caches or [], prompt.nbytes)
        self._retired.remove(prompt)

    def _reclaim(self) -> list[Sampled]:
        """Read the tokens in flight, and free all memory that no request needs."""
        results = self.decoding.read()
        self._retired.clear()
        self.decoding.compact()
        if self._drafter is not None:
            self._drafter.forget()
        self._none_in_flight = True
        return results

    def _preempt(self, ids: Sequence[int]) -> None:
        """Free the memory of these requests. They wait in order of arrival and are prefilled again."""
        self.num_preemptions += len(ids)
        for prompt in self.prompts:
            if prompt.row.id in ids:
                prompt.reset()
        self.prompts += [Prompt(row) for row in self.decoding.preempt(ids)]
        self.prompts.sort(key=lambda prompt: prompt.row.id)
        mx.clear_cache()
        logger.info("%d requests were preempted to free memory, %d go on", len(ids), len(self.decoding))

    def _of_prompts(
        self, work: Callable[[Prompt, Any], None], items: Sequence[Start | Encode | Prefill]
    ) -> list[Sampled]:
        """Apply `work` to each item's prompt. A failure fails that prompt alone; its later items are skipped."""
        failed = []
        for item in items:
            prompt = self._prompt(item.row_id)
            if prompt is None:
                continue
            try:
                work(prompt, item)
            except Exception as error:  # noqa: BLE001 - out of memory, most likely
                failed += self._fail(prompt, error)
        return failed

    def row(self, row_id: int) -> Row | None:
        """The row of a request that waits, prefills or decodes; None if it has ended."""
        prompt = next((prompt for prompt in self.prompts if prompt.row.id == row_id), None)
        return self.decoding.row(row_id) if prompt is None else prompt.row

    def _prompt(self, row_id: int) -> Prompt | None:
        return next((prompt for prompt in (*self.prompts, *self._retired) if prompt.row.id == row_id), None)

    def _fail(self, prompt: Prompt, error: Exception) -> list[Sampled]:
        """Drop a prompt and those that share its chunk. Those whose clients have left are not told."""
        failed = [each for each in (*self.prompts, *self._retired) if each is prompt or each.shares_chunk_with(prompt)]
        told = [each for each in failed if each in self.prompts]
        self.prompts = [each for each in self.prompts if each not in failed]
        self._retired = [each for each in self._retired if each not in failed]
        return [Sampled(each.row.id, 0, error=error, is_model_failure=True) for each in told]

    def _start(self, prompt: Prompt, start: Start) -> None:
        """Give a prompt a copy of the state that it starts from, or empty caches."""
        caches = None if start.prefix is None else self._copy_of(start.prefix)
        prompt.num_computed = 0 if caches is None or start.prefix is None else start.prefix.num_tokens
        prompt.caches = self._new_caches() if caches is None else caches
        if prompt.row.images is not None:
            prompt.row.images.locate(self._model)
        if not prompt.row.num_read:
            prompt.row.num_cached_tokens = prompt.num_computed

    def _copy_of(self, prefix: Prefix) -> LayerCaches | None:
        """A copy of the state, trimmed to the prefix; None if its request has failed since the plan was made."""
        if prefix.source is Source.KEPT:
            return self._prompt_cache.fetch(prefix.key, prefix.num_tokens)
        prompt = self._prompt(prefix.key)
        if prompt is not None and prompt.caches is not None:
            caches, num_computed = copy.deepcopy(prompt.caches), prompt.num_computed + prompt.num_chunk_tokens
        elif (row := self.decoding.row(prefix.key)) is not None:
            caches, num_computed = self.decoding.extract(row)
        else:
            return None
        trim_prompt_cache(caches, num_computed - prefix.num_tokens)
        return caches

    def _encode(self, prompt: Prompt, encode: Encode) -> None:
        assert prompt.row.images is not None  # noqa: S101 - its view has images
        started = self._clock()
        prompt.row.images.encode(self._model, encode.at)
        if len(self.decoding):
            self._measurements.note_encode(self._clock() - started)

    def _prefill(self, prompt: Prompt, prefill: Prefill) -> None:
        chunk = self._start_chunk(prompt, prefill) if prefill.num_tokens else prompt.chunk
        assert chunk is not None  # noqa: S101 - it was started
        if not chunk.compute(prefill.num_slices, self._clock):
            return
        for other in (*self.prompts, *self._retired):
            if other.chunk is chunk:
                self._end_chunk(other)
            else:
                other.num_passed_over += chunk.num_tokens
        mx.clear_cache()

    def _start_chunk(self, prompt: Prompt, prefill: Prefill) -> Chunk:
        others = [(other, num) for row_id, num in prefill.others if (other := self._prompt(row_id)) is not None]
        if others:
            return start_shared_chunk(self._model, [(prompt, prefill.num_tokens), *others])
        return start_chunk(self._model, prompt, prefill.num_tokens)

    def _end_chunk(self, prompt: Prompt) -> None:
        prompt.end_chunk()
        assert prompt.caches is not None  # noqa: S101 - started before it is prefilled
        if prompt in self._retired:
            self._keep_retired(prompt)
            return
        if prompt.num_left:
            reserve(prompt.caches, prompt.row.reach, at_most=1 if len(self.decoding) else None)
        if prompt.num_computed <= BLOCK_TOKENS:
            self._measurements.note_first_tokens(prompt.token_s)
        if prompt.num_computed in prompt.checkpoints:
            self.keep(prompt.row.tokens[: prompt.num_computed], copy.deepcopy(prompt.caches))

    def _join(self, ids: Sequence[int]) -> None:
        """Complete prompts start decoding. They join together, because each join copies a batch."""
        joining = [prompt for prompt in self.prompts if prompt.row.id in ids and prompt.is_complete]
        self.prompts = [prompt for prompt in self.prompts if prompt not in joining]
        self.decoding.add([(prompt.row, prompt.caches) for prompt in joining if prompt.caches is not None])

    def _decode(self, *, reads_now: bool) -> list[Sampled]:
        if not len(self.decoding):
            return []
        started = self._clock()
        results = self.decoding.step(reads_now=reads_now)
        if reads_now or not self._none_in_flight:  # else it waited for no token, and its duration means nothing
            self._measurements.note_step(self._clock() - started)
        self._none_in_flight = reads_now or not self.decoding.has_in_flight
        for prompt in self.prompts:
            prompt.num_steps_waited += 1
        return results

    def keep(self, tokens: list[int], caches: LayerCaches, freed_bytes: int = 0) -> None:
        """Hand a state to the prompt cache, see `RowMemory.keep`."""
        self._memory.keep(tokens, caches, rows_bytes=self.rows_bytes, freed_bytes=freed_bytes)

    def close(self) -> None:
        """Drop all requests and their caches, and keep no states."""
        self.prompts.clear()
        self._retired.clear()
        self.decoding.abandon()
