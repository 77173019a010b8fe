"""TextBatch: all requests of one text model, from their prompt to their last token. Worker thread only.

waiting -> reading (its prompt, in chunks) -> decoding -> gone. One step reads as much of the prompts as takes a few
decode steps, then gives every decoding row one token, so that nobody's stream stalls for longer than that.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache

from periscope.engine.commands import TokenPrompt
from periscope.engine.contracts import Sampled
from periscope.engine.decode_batches import DecodeBatches
from periscope.engine.decoding import DecodeBatch
from periscope.engine.grouping import LONG_TOKENS, Grouping
from periscope.engine.kv_memory import BLOCK_TOKENS
from periscope.engine.prefill import PromptView, chunk_tokens, next_prompt, pieces_now
from periscope.engine.prompt_cache import LayerCaches, PromptCache
from periscope.engine.reading import Prompt
from periscope.engine.row_caches import reserve
from periscope.engine.row_memory import Holding, RowMemory, newest_to_preempt
from periscope.engine.row_table import RowTable
from periscope.engine.rows import Row
from periscope.engine.sampling import RowSampling, logits_processors_for
from periscope.engine.sharing import borrow, waits_for_sibling
from periscope.engine.speculation import SpeculativeStep
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import TokenText
    from periscope.engine.commands import Submit
    from periscope.engine.kv_memory import KVBudget
    from periscope.engine.speculation import Drafter

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Steps between two looks at how much room the decoding rows' growth leaves to the prompt cache.
_ROOM_CHECK_STEPS = 64
#: Weight of the newest measurement of a step.
_NEWEST_PART = 0.4


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """How a model's requests are batched; the model's own facts first.

    Attributes:
        vocab_size: width of the logits.
        pass_bytes: what a further forward pass costs, see `Grouping`.
        can_share_passes: several rows' caches can be put side by side.
        wants_checkpoints: the caches cannot be cut back, so states are kept at the prompts' checkpoints.
        max_rows: decoded together; more wait.
        max_chunk_tokens: prompt tokens read in one step.
        checks_memory: refuse what cannot fit, before it is read.
    """

    eos_token_ids: frozenset[int]
    vocab_size: int
    pass_bytes: int
    can_share_passes: bool
    token_text: Callable[[int], TokenText]
    wants_checkpoints: bool
    max_rows: int
    max_chunk_tokens: int
    checks_memory: bool = True


class TextBatch:
    """Owns the prompts not yet read and the decoding rows; shares the prompt cache with the batches after it."""

    def __init__(
        self,
        model: Any,
        settings: BatchSettings,
        prompt_cache: PromptCache,
        budget: KVBudget,
        *,
        drafter: Drafter | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._settings = settings
        self._prompt_cache = prompt_cache
        self._memory = RowMemory(budget, prompt_cache, checks_requests=settings.checks_memory)
        self._keeps_states = budget.prompt_cache_bytes != 0
        self._clock = clock
        self._drafter = drafter
        self._num_rows = 0
        self._num_steps = 0
        self.working_bytes = 0  # at the last look
        self._prompts: list[Prompt] = []
        self._leaving: list[Prompt] = []  # removed; a chunk of theirs is under way
        self._gone: set[int] = set()  # removed since the last step
        self._step_s: float | None = None  # a decode step of the rows that run
        self._token_s: float | None = None  # what a token at the beginning of a prompt cost
        self._has_waited = True  # nothing is in flight
        self._grouping = Grouping(budget.footprint, settings.pass_bytes, settings.can_share_passes)
        self._decoding = DecodeBatches(self._new_decode_batch, self._grouping)

    def _new_decode_batch(self) -> DecodeBatch:
        end_token_ids = self._settings.eos_token_ids
        drafter = self._drafter
        return DecodeBatch(
            self._model,
            RowTable(self._keep, keeps_states=self._keeps_states),
            eos_token_ids=end_token_ids,
            token_text=self._settings.token_text,
            speculation=None if drafter is None else SpeculativeStep(self._model, drafter, end_token_ids=end_token_ids),
        )

    def __repr__(self) -> str:
        return f"<TextBatch reading={len(self._prompts)} decoding={len(self._decoding)} {self._prompt_cache}>"

    @property
    def prompt_cache_bytes(self) -> int:
        return self._prompt_cache.nbytes

    def clear_prompt_cache(self) -> None:
        self._prompt_cache.clear()
        if self._drafter is not None:
            self._drafter.forget()

    def admit(self, submit: Submit) -> int:
        if not isinstance(submit.prompt, TokenPrompt):
            raise InvalidRequest("A text model takes tokens, not images.", param="messages")
        tokens, params = list(submit.prompt.token_ids), submit.params
        self._memory.check_fits(len(tokens), self._rows_bytes())
        self._check_bias(params.logit_bias)
        params = replace(params, max_tokens=int(min(params.max_tokens or 1, self._memory.most_tokens - len(tokens))))
        self._num_rows += 1
        row = Row(
            id=self._num_rows,
            tokens=tokens,
            prompt=np.asarray(tokens, dtype=np.int64),
            params=params,
            sampling=RowSampling.of(params, vocab_size=self._settings.vocab_size),
            processors=logits_processors_for(params, tokens),
            matcher=None if submit.grammar is None else submit.grammar.new_matcher(),
        )
        checkpoints = submit.prompt.checkpoints if self._settings.wants_checkpoints else ()
        self._prompts.append(Prompt(row, checkpoints))
        return row.id

    def _check_bias(self, biases: Iterable[tuple[int, float]]) -> None:
        for token_id, _ in biases:
            if token_id >= self._settings.vocab_size:
                raise InvalidRequest(
                    f"`logit_bias` names token {token_id}, but this model's last is {self._settings.vocab_size - 1}.",
                    param="logit_bias",
                )

    def prepare(self) -> None:
        return

    @property
    def has_work(self) -> bool:
        """The next step has something to do, though it may be for nobody who waits."""
        return bool(self._prompts or self._leaving or self._gone or len(self._decoding))

    def step(self) -> list[Sampled]:
        self._num_steps += 1
        self._let_go()
        if self._num_steps % _ROOM_CHECK_STEPS == 0:
            self.working_bytes = self._rows_bytes()
            self._memory.make_room(self.working_bytes, self.working_bytes)
        has_prompts = bool(self._prompts or self._leaving)
        if self._leaving:
            self._go_on_leaving()
            failed = []
        else:
            failed = self._read_prompts() if has_prompts else []
        results = failed + self._decode(waits=has_prompts)
        self._finish_leaving()
        return results

    def _read_prompts(self) -> list[Sampled]:
        """As much of the prompts as fits between two steps. A failure in here is one prompt's alone."""
        is_decoding = len(self._decoding) > 0
        if any(prompt.is_read for prompt in self._prompts):
            self._join()
            return []
        failed = self._decoding.settle()  # so that what a step takes and what a prompt takes are told apart
        started, spent_steps = self._clock(), 0.0
        goes_on = True
        while goes_on and (candidates := self._candidates()):
            views = [PromptView(prompt.num_left, prompt.num_passed_over) for prompt in candidates]
            prompt = candidates[next_prompt(views)]
            try:
                goes_on = self._read_some(prompt, spent_steps, is_decoding=is_decoding)
            except Exception as error:  # noqa: BLE001 - out of memory, most likely
                self._prompts.remove(prompt)
                failed.append(Sampled(prompt.row.id, 0, error=error, is_model_failure=True))
            spent_steps = self._in_steps(self._clock() - started, unknown=math.inf)
        if not (
            is_decoding and any(prompt.is_read and len(prompt.row.tokens) > LONG_TOKENS for prompt in self._prompts)
        ):
            self._join()
        return failed

    def _in_steps(self, seconds: float | None, unknown: T) -> float | T:
        return unknown if seconds is None or self._step_s is None else seconds / self._step_s

    def _read_some(self, prompt: Prompt, spent_steps: float, *, is_decoding: bool) -> bool:
        """A part of a chunk of it, or all when nobody waits; whether there may be time for more in this step."""
        if prompt.caches is None:
            self._begin(prompt)
        if not prompt.num_left:
            return True
        if not prompt.num_pieces_left:
            prompt.start_chunk(self._model, self._chunk_of(prompt, is_decoding=is_decoding))
        num_pieces = self._pieces_now(prompt, spent_steps)
        if num_pieces and (num_tokens := prompt.compute(num_pieces, self._clock)):
            self._end_chunk(prompt, num_tokens)
        return num_pieces > 0 and is_decoding  # else somebody's first token comes first

    def _pieces_now(self, prompt: Prompt, spent_steps: float) -> int:
        """Of the chunk under way: all when nobody waits for a step."""
        if not len(self._decoding):
            return prompt.num_pieces_left
        piece_steps = self._in_steps(prompt.piece_s, unknown=None)
        return pieces_now(prompt.num_pieces_left, piece_steps=piece_steps, spent_steps=spent_steps)

    def _chunk_of(self, prompt: Prompt, *, is_decoding: bool) -> int:
        num = min(prompt.num_left, self._settings.max_chunk_tokens)
        if is_decoding:
            token_steps = self._in_steps(prompt.token_s or self._token_s, unknown=None)
            num = chunk_tokens(prompt.num_left, num, num_pieces=prompt.num_pieces, token_steps=token_steps)
        return min([num, *(mark - prompt.num_done for mark in prompt.checkpoints if mark > prompt.num_done)])

    def _end_chunk(self, prompt: Prompt, num_tokens: int) -> None:
        assert prompt.caches is not None  # noqa: S101 - begun before it is read
        if prompt.num_left:
            reserve(prompt.caches, prompt.row.reach, at_most=1 if len(self._decoding) else None)
        if prompt.num_done <= BLOCK_TOKENS:
            self._token_s = prompt.token_s
        for other in self._prompts:
            if other is not prompt:
                other.num_passed_over += num_tokens
        if prompt.num_done in prompt.checkpoints:
            self._keep(prompt.row.tokens[: prompt.num_done], copy.deepcopy(prompt.caches))

    def _join(self) -> None:
        """All prompts read to their end start decoding, together: each time the batch is copied."""
        read = [prompt for prompt in self._prompts if prompt.is_read]
        self._prompts = [prompt for prompt in self._prompts if not prompt.is_read]
        self._decoding.add([(prompt.row, prompt.caches) for prompt in read if prompt.caches is not None])

    def _candidates(self) -> list[Prompt]:
        """Prompts that are begun, and those that may be, in order of arrival."""
        begun = self._reading()
        num_free = self._settings.max_rows - len(self._decoding) - len(begun)
        candidates = []
        batches, room = self._batches_with(()), self._memory.room_bytes(self._rows_bytes())
        for prompt in self._prompts:
            if prompt.caches is not None:
                candidates += [] if prompt.is_read else [prompt]
            elif num_free > 0:
                with_it = self._grouping.joined(batches, [prompt.row.reach])
                if batches and self._grouping.held_bytes(with_it) > room:
                    num_free = 0  # those behind it wait too, or it would wait for ever
                    continue
                batches = with_it
                if not waits_for_sibling(prompt, begun, self._prompt_cache):
                    candidates.append(prompt)
        return candidates

    def _begin(self, prompt: Prompt) -> None:
        """Give it the longest state there is of its beginning, or an empty one."""
        self._make_room_for_row(prompt.row.reach)
        self._decoding.finish_exports()  # it may go on where one of those ended
        caches, length = self._prompt_cache.fetch(prompt.tokens)
        if borrowed := self._borrowed(prompt.tokens, more_than=length):
            caches, length = borrowed
        prompt.caches = make_prompt_cache(self._model) if caches is None else caches
        prompt.num_done = length
        if not prompt.row.num_read:
            prompt.row.num_cached_tokens = length

    def _borrowed(self, wanted: np.ndarray, *, more_than: int) -> tuple[LayerCaches, int] | None:
        """A state of a live neighbour, if that is worth it."""
        can_lend = not self._settings.wants_checkpoints
        return borrow(wanted, self._reading(), self._decoding, more_than=more_than) if can_lend else None

    def _decode(self, *, waits: bool) -> list[Sampled]:
        if not len(self._decoding):
            return []
        results = self._preempt_for_growth() if self._decoding.growth_bytes else []
        started = self._clock()
        results += self._decoding.step(reads_now=waits)
        if waits or not self._has_waited:  # else it had nothing to wait for, and its duration tells nothing
            self._note_step(self._clock() - started)
        self._has_waited = waits
        return results

    def _preempt_for_growth(self) -> list[Sampled]:
        """Before the caches grow: if they would take more than there is, the newest requests wait again.

        What is not needed goes first: kept states, the drafter's, lines of rows that have left, prompts of requests
        that were removed. Returns the tokens that were in flight, if they had to be read.
        """
        if self._memory.make_room(self._grown_bytes(), self._rows_bytes()):
            return []
        results = self._decoding.read()  # where a row goes on depends on its newest token
        self._leaving.clear()
        self._decoding.compact()
        if self._drafter is not None:
            self._drafter.forget()
        rows_bytes = self._rows_bytes()
        if not self._memory.make_room(self._grown_bytes(), rows_bytes):
            holdings = [Holding(prompt.row.id, self._read_bytes(prompt)) for prompt in self._reading()]
            holdings += self._decoding.holdings
            if preempted := newest_to_preempt(holdings, self._memory.room_bytes(rows_bytes)):
                self._preempt(preempted)
        return results

    def _preempt(self, ids: Sequence[int]) -> None:
        """These requests give up their memory and wait, in order of arrival; what they have said is computed again."""
        for prompt in self._prompts:
            if prompt.row.id in ids:
                prompt.start_again()
        self._prompts += [Prompt(row) for row in self._decoding.preempt(ids)]
        self._prompts.sort(key=lambda prompt: prompt.row.id)
        mx.clear_cache()
        logger.info("%d requests wait for memory again, %d go on", len(ids), len(self._decoding))

    def _note_step(self, duration_s: float) -> None:
        known_s = duration_s if self._step_s is None else self._step_s
        self._step_s = known_s + _NEWEST_PART * (duration_s - known_s)

    def remove(self, rows: Sequence[int]) -> None:
        self._gone.update(rows)

    def _let_go(self) -> None:
        """Of the rows that were removed since the step before; their states are kept."""
        if not self._gone:
            return
        leaving = [prompt for prompt in self._prompts if prompt.row.id in self._gone]
        self._prompts = [prompt for prompt in self._prompts if prompt not in leaving]
        self._leaving += [prompt for prompt in leaving if prompt.caches is not None]
        self._decoding.retire(self._gone)
        self._gone.clear()

    def _finish_leaving(self) -> None:
        """As far as nobody's token waits for it; without decoding rows there may be no further step."""
        while self._leaving and not (self._leaving[0].num_pieces_left and len(self._decoding)):
            self._go_on_leaving()

    def _go_on_leaving(self) -> None:
        """The state of a prompt that was removed goes to the prompt cache once the chunk under way is computed."""
        prompt = self._leaving[0]
        try:
            if prompt.num_pieces_left:
                prompt.compute(self._pieces_now(prompt, 0.0), self._clock)
        except Exception:  # noqa: BLE001 - nobody waits for it; what comes next will meet the same and say so
            self._leaving.remove(prompt)
            return
        if not prompt.num_pieces_left:
            self._keep(prompt.row.tokens[: prompt.num_done], prompt.caches or [], prompt.nbytes)
            self._leaving.remove(prompt)

    def close(self) -> None:
        self._prompts.clear()
        self._leaving.clear()
        self._decoding.abandon()

    def _batches_with(self, reaches: Sequence[int]) -> list[list[int]]:
        """The decoding batches once the prompts that hold memory have joined them, and then rows of these reaches."""
        return self._grouping.joined(self._decoding.reaches, [*(p.row.reach for p in self._begun()), *reaches])

    def _reading(self) -> list[Prompt]:
        """Prompts that are begun; all hold memory."""
        return [prompt for prompt in self._prompts if prompt.caches is not None]

    def _begun(self) -> list[Prompt]:
        """Those, and the removed ones that still hold memory."""
        return [*self._reading(), *self._leaving]

    def _read_bytes(self, prompt: Prompt) -> int:
        """What a prompt will hold when it has been read."""
        return self._grouping.held_bytes([[prompt.row.reach]])

    def _rows_bytes(self) -> int:
        reading = sum(prompt.nbytes for prompt in self._begun())
        return reading + self._decoding.nbytes + (0 if self._drafter is None else self._drafter.nbytes)

    def _grown_bytes(self) -> int:
        """What the rows hold after the next step, with what was promised to the prompts that are being read."""
        reading = sum(map(self._read_bytes, self._reading()))
        reading += sum(prompt.nbytes for prompt in self._leaving)
        drafting = 0 if self._drafter is None else self._drafter.nbytes
        return reading + drafting + self._decoding.nbytes + self._decoding.growth_bytes

    def _make_room_for_row(self, reach: int) -> None:
        """Kept states give way to a row, and so do lines of rows that have left."""
        wanted_bytes = self._grouping.held_bytes(self._batches_with([reach]))
        if not self._memory.make_room(max(wanted_bytes, self._grown_bytes()), self._rows_bytes()):
            self._decoding.compact()
            self._memory.make_room(wanted_bytes, self._rows_bytes())

    def _keep(self, tokens: list[int], caches: LayerCaches, freed_bytes: int = 0) -> None:
        self._memory.keep(tokens, caches, rows_bytes=self._rows_bytes(), freed_bytes=freed_bytes)
