"""TextBatch: all requests of one text model, from admission to the last token. Worker thread only.

A request is waiting, prefilling, decoding, then retired. In each step the scheduler makes a plan, which is pure, and
the executor applies it: layer slices of prompts that take a few decode steps, then one token for every decoding row.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from periscope.engine.batch.chunk import num_slices_of
from periscope.engine.batch.decode_batch import DecodeBatch
from periscope.engine.batch.decode_batches import DecodeBatches
from periscope.engine.batch.disk.arrivals import Arrivals
from periscope.engine.batch.executor import Executor
from periscope.engine.batch.grouping import Grouping
from periscope.engine.batch.penalties import Penalties
from periscope.engine.batch.prompt import Prompt
from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
from periscope.engine.batch.prompt_logprobs import PromptLogprobs
from periscope.engine.batch.row_images import RowImages
from periscope.engine.batch.row_memory import RowMemory
from periscope.engine.batch.row_table import RowTable
from periscope.engine.batch.rows import Row
from periscope.engine.batch.sampling import RowSampling
from periscope.engine.batch.scheduler import Scheduler, SchedulerSettings
from periscope.engine.batch.speculation import SpeculativeStep
from periscope.engine.batch.step_plan import DECODE_ONLY
from periscope.engine.batch.token_bias import biases_for
from periscope.engine.structured.thinking import Thinking
from periscope.engine.worker.commands import TokenPrompt
from periscope.engine.worker.contracts import IDLE_POLL_S, DiskUse, DraftCounts, Sampled
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import GenerationParams, TokenText
    from periscope.engine.batch.disk.tier import DiskTier
    from periscope.engine.batch.speculation import Drafter
    from periscope.engine.device.memory import KVBudget
    from periscope.engine.worker.commands import Submit

#: Steps between two checks of how much room the growth of decoding rows leaves to the prompt cache.
_ROOM_CHECK_STEPS = 64
#: A step reads a state from disk for so long, in seconds: beside decoding rows, which wait for it, and beside none.
_READ_BESIDE_ROWS_S, _READ_ALONE_S = 0.005, 0.05


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a model's requests are batched: facts of the model first, then settings.

    Attributes:
        vocab_size: width of the logits.
        forward_pass_bytes: cost of one more forward pass, see `Grouping`.
        can_batch_rows: several rows can share a forward pass when they decode.
        can_share_chunks: several prompts can share a forward pass.
        token_text: the text of a token id, for log-probabilities.
        wants_checkpoints: the caches cannot be trimmed, so states are kept at the prompts' checkpoints.
        max_rows: most requests that prefill or decode at once; more wait.
        max_chunk_tokens: most prompt tokens in one forward pass.
        checks_memory: refuse prompts that cannot fit, before they are prefilled.
    """

    eos_token_ids: frozenset[int]
    vocab_size: int
    forward_pass_bytes: int
    can_batch_rows: bool
    can_share_chunks: bool
    token_text: Callable[[int], TokenText]
    wants_checkpoints: bool
    max_rows: int
    max_chunk_tokens: int
    checks_memory: bool = True


class TextBatch:
    """Owns admission to and removal from one model's batch. The `Executor` owns the requests in between.

    Does not own the prompt cache and the disk tier: they outlive this batch and are used by the next one.

    Args:
        new_caches: makes the empty caches of a row; None = the model's own.

    Attributes:
        drafted: tokens that were drafted for its rows so far.
        working_bytes: bytes of all requests' caches when last checked, once in `_ROOM_CHECK_STEPS` steps.
    """

    def __init__(
        self,
        model: Any,
        settings: BatchSettings,
        prompt_cache: PromptCache,
        budget: KVBudget,
        *,
        new_caches: Callable[[], LayerCaches] | None = None,
        disk: DiskTier | None = None,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.working_bytes = 0
        self.drafted = DraftCounts()
        new_caches = new_caches or partial(make_prompt_cache, model)
        self._model = model
        self._settings = settings
        self._prompt_cache = prompt_cache
        self._memory = RowMemory(budget, prompt_cache, checks_requests=settings.checks_memory)
        self._keeps_states = budget.prompt_cache_bytes != 0
        self._disk = disk
        self._drafter = drafter
        self._clock = clock
        self._num_rows = 0
        self._num_steps = 0
        self._removed: set[int] = set()  # ids, since the last step
        grouping = Grouping(budget.footprint, settings.forward_pass_bytes, settings.can_batch_rows)
        decoding = DecodeBatches(self._new_decode_batch, grouping)
        self._executor = Executor(
            model, decoding, prompt_cache, self._memory, new_caches=new_caches, drafter=drafter, clock=clock
        )
        self._arrivals = None
        if disk is not None:
            self._arrivals = Arrivals(disk, self._executor.keep, self._max_kept_bytes, clock)
        self._scheduler = Scheduler(
            SchedulerSettings(
                max_rows=settings.max_rows,
                max_chunk_tokens=settings.max_chunk_tokens,
                num_slices=num_slices_of(new_caches()),
                shares_chunks=settings.can_share_chunks,
                shares_live=not settings.wants_checkpoints,
                grouping=grouping,
            )
        )

    def _max_kept_bytes(self) -> int:
        return self._memory.max_kept_bytes(self._executor.rows_bytes)

    def _new_decode_batch(self) -> DecodeBatch:
        drafter = self._drafter
        return DecodeBatch(
            self._model,
            RowTable(self._keep, keeps_states=self._keeps_states),
            token_text=self._settings.token_text,
            speculation=None if drafter is None else SpeculativeStep(self._model, drafter, self.drafted, self._clock),
            clock=self._clock,
        )

    def _keep(self, tokens: list[int], caches: LayerCaches, freed_bytes: int) -> None:
        self._executor.keep(tokens, caches, freed_bytes)

    def __repr__(self) -> str:
        num_prompts, num_rows = len(self._executor.prompts), len(self._executor.decoding)
        return f"<TextBatch prompts={num_prompts} decoding={num_rows} {self._prompt_cache}>"

    @property
    def prompt_cache_bytes(self) -> int:
        return self._prompt_cache.nbytes

    @property
    def disk_use(self) -> DiskUse:
        return DiskUse() if self._disk is None else self._disk.use

    @property
    def num_preemptions(self) -> int:
        return self._executor.num_preemptions

    def clear_prompt_cache(self) -> None:
        self._prompt_cache.clear()
        if self._drafter is not None:
            self._drafter.forget()

    def admit(self, submit: Submit) -> int:
        if not isinstance(submit.prompt, TokenPrompt):
            raise InvalidRequest("A text model takes tokens, not images.", param="messages")
        prompt, params = submit.prompt, submit.params
        images = RowImages(prompt.token_ids, prompt.images) if prompt.images else None
        tokens = list(prompt.token_ids) if images is None else images.keyed_tokens
        self._memory.check_fits(len(tokens), self._executor.rows_bytes)
        self._check_known("logit_bias", [token_id for token_id, _ in params.logit_bias])
        self._check_known("stop_token_ids", params.stop_token_ids)
        params = replace(params, max_tokens=int(min(params.max_tokens or 1, self._memory.max_num_tokens - len(tokens))))
        self._num_rows += 1
        row = self._new_row(self._num_rows, submit, prompt, params, tokens=tokens, images=images)
        checkpoints = prompt.checkpoints if self._settings.wants_checkpoints else ()
        arrived = Prompt(row, checkpoints)
        if self._arrivals is None or not self._arrivals.take(arrived):
            self._executor.prompts.append(arrived)
        return row.id

    def _new_row(
        self,
        row_id: int,
        submit: Submit,
        prompt: TokenPrompt,
        params: GenerationParams,
        *,
        tokens: list[int],
        images: RowImages | None,
    ) -> Row:
        """One completion as it is before its prefill. `params.max_tokens` is what memory holds."""
        row = Row(
            id=row_id,
            tokens=tokens,
            prompt=np.asarray(tokens, dtype=np.int64),
            params=params,
            sampling=RowSampling.of(params, vocab_size=self._settings.vocab_size),
            penalties=Penalties.of(params),
            biases=biases_for(params, self._settings.eos_token_ids),
            end_token_ids=self._settings.eos_token_ids.union(params.stop_token_ids, prompt.end_token_ids),
            matcher=None if submit.grammar is None else submit.grammar.new_matcher(),
            thinking_rules=submit.thinking,
            images=images,
            prompt_logprobs=PromptLogprobs(params.top_logprobs) if params.prompt_logprobs else None,
            lookup=None if self._drafter is None else self._drafter.new_lookup(len(tokens), prompt.prediction),
        )
        if submit.thinking is not None and params.thinking_budget is not None:
            budget = submit.thinking.budget_within(params.thinking_budget, params.max_tokens or 1)
            row.thinking = Thinking(submit.thinking, budget, self._token_bytes)
        return row

    def end_thinking(self, row_id: int) -> None:
        arrived = None if self._arrivals is None else self._arrivals.prompt(row_id)
        row = self._executor.row(row_id) if arrived is None else arrived.row
        if row is None or row.thinking_rules is None:
            return
        if row.thinking is None:
            row.thinking = Thinking(row.thinking_rules, None, self._token_bytes)
            for at, token in enumerate(row.tokens[len(row.prompt) :]):
                row.thinking.see(token, at)
        row.thinking.end_soon()

    def _token_bytes(self, token_id: int) -> bytes:
        return self._settings.token_text(token_id).utf8

    def _check_known(self, param: str, token_ids: Iterable[int]) -> None:
        for token_id in token_ids:
            if not 0 <= token_id < self._settings.vocab_size:
                raise InvalidRequest(
                    f"`{param}` names token {token_id}; this model has 0 to {self._settings.vocab_size - 1}.",
                    param=param,
                )

    def prepare(self) -> None:
        return

    @property
    def has_work(self) -> bool:
        """Whether the next step has something to do, if only for requests that have been removed."""
        return bool(self._removed or self._arrivals) or self._executor.has_work

    def step(self) -> list[Sampled]:
        self._num_steps += 1
        executor = self._executor
        if self._disk is not None:
            self._disk.note_work()
        if self._arrivals:
            self._read_from_disk(self._arrivals)
        is_room_check = self._num_steps % _ROOM_CHECK_STEPS == 0
        if is_room_check:
            self.working_bytes = executor.rows_bytes
        if not (is_room_check or executor.has_prompts or self._removed or executor.decoding.growth_bytes):
            return executor.apply(DECODE_ONLY)
        view = executor.view(self._removed)
        self._removed.clear()
        return executor.apply(self._scheduler.plan(view, executor.timings))

    def _read_from_disk(self, arrivals: Arrivals) -> None:
        """Read pieces of the states that new requests start from; hand those that have theirs to the executor."""
        arrivals.remove(self._removed)
        executor = self._executor
        is_alone = not (executor.has_prompts or len(executor.decoding))
        executor.prompts += arrivals.step(_READ_ALONE_S if is_alone else _READ_BESIDE_ROWS_S)
        executor.prompts.sort(key=lambda prompt: prompt.row.id)

    def rest(self) -> float:
        return IDLE_POLL_S if self._disk is None else self._disk.rest()

    def save(self, within_s: float) -> None:
        if self._disk is not None:
            self._disk.save(within_s)

    def remove(self, rows: Sequence[int]) -> None:
        self._removed.update(rows)

    def close(self) -> None:
        if self._arrivals is not None:
            self._arrivals.close()
        if self._disk is not None:
            self._disk.abandon()
        self._executor.close()
