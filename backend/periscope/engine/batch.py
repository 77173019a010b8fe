"""A text model and its batch: the facade over mlx-lm, where its version quirks are met. Worker thread only."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx_lm import load
from mlx_lm.generate import BatchGenerator

from periscope.core import FinishReason
from periscope.engine.commands import TokenPrompt
from periscope.engine.contracts import Sampled
from periscope.engine.detokenizer import Detokenizer, new_detokenizer
from periscope.engine.loader import LIBRARY_LOCK, EngineConfig, LoadProgress, materialize, prepare_libraries
from periscope.engine.sampling import logits_processors_for, sampler_for
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from pathlib import Path

    from periscope.engine.commands import Submit
    from periscope.engine.sampling import LogitsProcessor, Sampler
    from periscope.engine.turn import DeviceTurn

#: Prompts prefilled side by side. More would lengthen the gap between two decode steps of the running rows.
PREFILL_BATCH_SIZE = 4
#: Steps between two evaluations of cache metadata. mlx-lm 0.32 leaves `left_padding` of hybrid models lazy: their
#: graph grows with every token until Metal runs out of buffers (mlx-lm#1845). Exit: when upstream evaluates it.
METADATA_EVAL_STEPS = 64


class _Guard:
    """Owns the first exception of one row's samplers and processors.

    An exception inside mlx-lm's `next()` silently loses every row, so nothing of a row may raise there: after a
    fault the row goes on with greedy sampling until the worker removes it.
    """

    def __init__(self) -> None:
        self.fault: Exception | None = None

    def processor(self, inner: LogitsProcessor) -> LogitsProcessor:
        def guarded(tokens: mx.array, logits: mx.array) -> mx.array:
            if self.fault is None:
                try:
                    return inner(tokens, logits)
                except Exception as error:  # noqa: BLE001 - whatever it is, it stays this row's
                    self.fault = error
            return logits

        return guarded


class TextBatch:
    """Facade over mlx-lm's `BatchGenerator` for one text model."""

    def __init__(
        self,
        model: Any,
        *,
        eos_token_ids: Iterable[int],
        vocab_size: int,
        max_rows: int,
        prefill_chunk_tokens: int,
    ) -> None:
        self._vocab_size = vocab_size
        self._guards: dict[int, _Guard] = {}
        self._wants_logprobs: set[int] = set()
        self._num_steps = 0
        self._generator = BatchGenerator(
            model,
            stop_tokens=[[token] for token in sorted(eos_token_ids)],
            completion_batch_size=max_rows,
            prefill_batch_size=min(PREFILL_BATCH_SIZE, max_rows),
            prefill_step_size=prefill_chunk_tokens,
            stream=mx.default_stream(mx.default_device()),
        )

    def admit(self, submit: Submit) -> int:
        if not isinstance(submit.prompt, TokenPrompt):
            raise InvalidRequest("A text model takes tokens, not images.", param="messages")
        guard = _Guard()
        sampler: Sampler = sampler_for(submit.params, vocab_size=self._vocab_size)
        processors = [guard.processor(p) for p in logits_processors_for(submit.params)]
        (row,) = self._generator.insert(
            [list(submit.prompt.token_ids)],
            max_tokens=[submit.params.max_tokens or 1],
            samplers=[sampler],
            logits_processors=[processors],
        )
        self._guards[row] = guard
        if submit.params.logprobs:
            self._wants_logprobs.add(row)
        return int(row)

    def step(self) -> list[Sampled]:
        _, responses = self._generator.next()
        self._num_steps += 1
        if self._num_steps % METADATA_EVAL_STEPS == 0:
            self._eval_cache_metadata()
        sampled = [self._sampled(response) for response in responses]
        self._forget(s.row for s in sampled if s.finish_reason is not None)
        return sampled

    def _sampled(self, response: Any) -> Sampled:
        row = response.uid
        logprob = float(response.logprobs[response.token]) if row in self._wants_logprobs else None
        reason = FinishReason(response.finish_reason) if response.finish_reason else None
        return Sampled(row=row, token_id=response.token, logprob=logprob, finish_reason=reason)

    def _eval_cache_metadata(self) -> None:
        caches = self._generator._generation_batch.prompt_cache  # noqa: SLF001 - no public way, see METADATA_EVAL_STEPS
        lazy = [getattr(cache, name, None) for cache in caches for name in ("left_padding", "lengths")]
        mx.eval([array for array in lazy if isinstance(array, mx.array)])

    def fault_of(self, row: int) -> Exception | None:
        guard = self._guards.get(row)
        return None if guard is None else guard.fault

    def remove(self, rows: Sequence[int]) -> None:
        self._generator.remove(list(rows))
        self._forget(rows)

    def _forget(self, rows: Iterable[int]) -> None:
        for row in list(rows):
            self._guards.pop(row, None)
            self._wants_logprobs.discard(row)

    def close(self) -> None:
        self._generator.close()
        self._guards.clear()


class TextModel:
    """A loaded text model: weights, tokenizer, and how to start a batch over them."""

    def __init__(self, model: Any, tokenizer: Any, config: EngineConfig) -> None:
        self.tokenizer = tokenizer
        self._model = model
        self._config = config

    @classmethod
    def load(cls, path: Path, config: EngineConfig, turn: DeviceTurn, progress: LoadProgress) -> TextModel:
        """Read weights and tokenizer from a folder; blocks."""
        prepare_libraries()
        with LIBRARY_LOCK:
            model, tokenizer = load(str(path), lazy=True)
        materialize(model, config.dtype, turn, progress)
        return cls(model, tokenizer, config)

    def new_batch(self) -> TextBatch:
        return TextBatch(
            self._model,
            eos_token_ids=self.tokenizer.eos_token_ids,
            vocab_size=len(self.tokenizer),
            max_rows=self._config.max_num_seqs,
            prefill_chunk_tokens=self._config.prefill_chunk_size,
        )

    def new_detokenizer(self) -> Detokenizer:
        return new_detokenizer(self.tokenizer)
