"""DecodeBatch: the decoding rows of one batch, and the steps that give each of them one token. Worker thread only.

A step launches the next forward pass before it reads the tokens of the previous one, so that the device never waits
for Python.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np

from periscope.core import FinishReason, TokenLogprob, TokenText
from periscope.engine.batch.logprobs import LazyLogprobs
from periscope.engine.batch.next_tokens import next_tokens
from periscope.engine.batch.rows import Row, position_deltas
from periscope.engine.batch.said_tokens import SaidTokens
from periscope.engine.batch.step_plan import RowView
from periscope.engine.device.memory import flat
from periscope.engine.worker.contracts import Sampled

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_cache import LayerCaches
    from periscope.engine.batch.row_table import RowTable
    from periscope.engine.batch.speculation import SpeculativeStep

#: Steps between two evaluations of cache metadata. mlx-lm 0.32 leaves `left_padding` of hybrid models lazy: their
#: graph grows with every token until Metal runs out of buffers (mlx-lm#1845). Exit: when upstream evaluates it.
METADATA_EVAL_STEPS = 64


class DecodeBatch:
    """Launches forward passes over the rows of a table, reads the sampled tokens and retires rows that have ended.

    After `step` raised, only `abandon` may be called.

    Args:
        table: the batch's rows and their caches.
        speculation: used where it is likely to pay; needs caches that can be trimmed.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        model: Callable[..., mx.array],
        table: RowTable,
        *,
        token_text: Callable[[int], TokenText],
        speculation: SpeculativeStep | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._table = table
        self._token_text = token_text
        self._speculation = speculation
        self._clock = clock
        self._said = SaidTokens()
        self._logprobs = LazyLogprobs()
        self._num_steps = 0
        self._awaiting: list[Row] = []  # rows with a token in flight when the step began
        self._results: list[Sampled] = []  # of the current step so far

    def __len__(self) -> int:
        """Number of rows that are not retired."""
        return len(self._table)

    @property
    def rows(self) -> Sequence[Row]:
        """The rows that are not retired, in the order of their slots."""
        return self._table.rows

    @property
    def views(self) -> Sequence[RowView]:
        """The rows, as the scheduler sees them."""
        if not len(self):
            return []
        num_bytes = (self.nbytes + self.growth_bytes()) // self.num_slots
        return [RowView(row.id, row.prompt, row.reach, num_bytes, row.num_launched) for row in self.rows]

    @property
    def nbytes(self) -> int:
        """Bytes of the caches, padding included."""
        return self._table.nbytes

    @property
    def num_slots(self) -> int:
        """Number of cache slots, those of retired rows included."""
        return len(self._table.slots)

    @property
    def exports(self) -> Sequence[np.ndarray]:
        """The tokens of the retired rows whose states are still being copied out."""
        return self._table.exports

    @property
    def has_in_flight(self) -> bool:
        """Whether the newest token of some row has been launched and not been read."""
        return any(not row.is_read for row in self._table.slots)

    def add(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        """Add rows whose caches hold all of their prompt but the last token."""
        self._table.add(joining)

    def finish_exports(self) -> None:
        """Copy out the remaining layers of retired rows now and hand their states to the prompt cache."""
        self._table.finish_exports()

    def compact(self) -> None:
        """Remove the slots of retired rows."""
        self._table.compact()

    def retire(self, ids: Iterable[int]) -> None:
        """Stop computing these rows and keep their states. Unknown ids are ignored."""
        retired = set(ids)
        self._table.retire([row for row in self._table.rows if row.id in retired])

    def growth_bytes(self) -> int:
        """Bytes that the next step adds to the caches; 0 except in the few steps in which arrays grow."""
        table, speculation = self._table, self._speculation
        return table.growth_bytes(1 if speculation is None else speculation.max_tokens_per_step(table.slots))

    def preempt(self, ids: Collection[int]) -> list[Row]:
        """Remove rows without keeping their states, so that they can be prefilled again; nothing may be in flight."""
        return self._table.preempt(ids)

    def extract(self, row: Row) -> tuple[LayerCaches, int]:
        """A copy of a row's caches, which shares memory until one is written to, and how many tokens they hold."""
        return self._table.extract(row)

    def read(self) -> list[Sampled]:
        """Block until the tokens in flight are computed and return them. Nothing is in flight afterwards."""
        self._awaiting, self._results = [], []
        self._read_in_flight()
        return self._results

    def synchronize(self) -> list[Sampled]:
        """Block until the tokens in flight are computed. They are returned by a later `read` or `step`."""
        self._awaiting, self._results = self._rows_in_flight(), []
        if self._table.newest is not None:
            mx.eval(self._table.newest)
        return self._results

    def abandon(self, error: Exception | None = None) -> list[Sampled]:
        """Drop all rows and caches. After a failed step, returns its results so far and a failure for all other rows.

        These include rows that were retired because their last token was in flight, and that was never read.
        """
        ended = {result.row for result in self._results if _has_ended(result)}
        lost = [row for row in (*self.rows, *(row for row in self._awaiting if row.is_retired)) if row.id not in ended]
        self._table.clear()
        self._logprobs = LazyLogprobs()
        return self._results + [Sampled(row.id, 0, error=error, is_model_failure=True) for row in lost]

    def step(self, *, reads_now: bool = False, are_all: bool = True) -> list[Sampled]:
        """One token for every row, or several after a speculative step.

        Rows that have just been added get their first token with the next step.

        Args:
            reads_now: also read the tokens that this step samples. The caller sets it when the device will do other
                work next, for which these tokens should not wait.
            are_all: this is the model's only batch.
        """
        table, speculation = self._table, self._speculation
        if speculation is not None and not speculation.may_draft(table.slots):
            speculation = None
        started = 0.0 if speculation is None else self._clock()
        slots, newest, logprobs = list(table.slots), table.newest, self._logprobs
        self._awaiting, self._results = self._rows_in_flight(), []
        table.retire([row for row in slots if row.is_fully_launched])
        table.export_layer()
        table.compact_if_worth_it()
        speculates = speculation is not None and speculation.expects(table, are_all=are_all)
        try:
            if table.slots and not speculates:
                self._launch()
        finally:  # also when the launch failed: these tokens are those of the previous forward pass
            self._results += self._read_all(slots, self._awaiting, newest, logprobs)
        self._retire_ended()
        if speculation is not None and table.slots:
            if speculates:
                self._speculate(speculation)
            elif self._awaiting:
                speculation.note_step(len(table.slots), self._clock() - started)
        if reads_now:
            self._read_in_flight()
        return self._results

    def _rows_in_flight(self) -> list[Row]:
        return [row for row in self._table.slots if not row.is_read]

    def _retire_ended(self) -> None:
        ended = [result.row for result in self._results if _has_ended(result)]
        if ended:
            self.retire(ended)

    def _read_in_flight(self) -> None:
        self._results += self._read_all(self._table.slots, self._rows_in_flight(), self._table.newest, self._logprobs)
        self._retire_ended()

    def _read_all(
        self, slots: Sequence[Row], awaiting: Sequence[Row], newest: mx.array | None, logprobs: LazyLogprobs
    ) -> list[Sampled]:
        """Read the newest tokens of the rows that await theirs.

        Args:
            slots: the rows in the order of `newest`.
        """
        if not awaiting or newest is None:
            return []
        facts = logprobs.read(self._token_text)
        tokens = dict(zip((row.id for row in slots), cast("list[int]", newest.tolist()), strict=True))
        return [self._read(row, tokens[row.id], facts.get(row.id)) for row in awaiting]

    def _speculate(self, speculation: SpeculativeStep) -> None:
        """Verify drafts and read what the rows say, or launch an ordinary step if there are none."""
        verified = speculation.run(self._table)
        if verified is None:
            self._launch()
            return
        for row, said in verified:
            for token, scores in zip_longest(said.tokens, said.logprobs):
                facts = {} if scores is None else scores.read(self._token_text)
                self._results.append(self._read(row, token, facts.get(row.id)))
        slots = self._table.slots
        self._table.newest = mx.array([row.tokens[-1] for row in slots], dtype=mx.uint32)
        self._logprobs = LazyLogprobs()
        self._retire_ended()

    def _launch(self) -> None:
        """Launch the forward pass over every row's newest token; does not wait for it, except for grammars."""
        slots, newest = self._table.slots, self._table.newest
        assert newest is not None  # noqa: S101 - there are rows
        raw = self._model(newest[:, None], cache=self._table.layers, **position_deltas(slots))[:, -1, :]
        sampled = next_tokens(slots, newest, raw, self._said)
        self._table.advance(sampled)
        self._logprobs = LazyLogprobs.of(slots, raw, sampled)
        mx.async_eval(sampled, *self._logprobs.arrays)  # type: ignore[no-untyped-call]
        for row in slots:
            row.num_launched += 1
            row.num_computed += 1
        self._num_steps += 1
        if self._num_steps % METADATA_EVAL_STEPS == 0:
            _eval_cache_metadata(self._table.layers)

    def _read(self, row: Row, token: int, logprob: TokenLogprob | None) -> Sampled:
        if row.fault is not None:
            return Sampled(row.id, token, error=row.fault)
        if row.thinking is not None:
            row.thinking.see(token, row.num_read)
        row.tokens.append(token)
        is_eos, reason = token in row.end_token_ids, None
        if is_eos:
            reason = FinishReason.LENGTH if row.is_shortened else FinishReason.STOP
        elif row.num_read >= (row.params.max_tokens or 1):
            reason = FinishReason.LENGTH
        return Sampled(
            row.id,
            token,
            logprob,
            reason,
            is_eos=is_eos,
            num_cached_tokens=row.num_cached_tokens,
            num_accepted=row.num_accepted,
            num_rejected=row.num_rejected,
            prompt_logprobs=self._prompt_logprobs(row),
        )

    def _prompt_logprobs(self, row: Row) -> tuple[TokenLogprob, ...]:
        """Those of the prompt's tokens, with the first token of the row that asks for them."""
        collected, row.prompt_logprobs = row.prompt_logprobs, None
        return () if collected is None else collected.told(row.tokens[0], self._token_text)


def _eval_cache_metadata(layers: Iterable[Any]) -> None:
    lazy = [getattr(cache, name, None) for cache in flat(layers) for name in ("left_padding", "lengths")]
    mx.eval([array for array in lazy if isinstance(array, mx.array)])


def _has_ended(result: Sampled) -> bool:
    return result.finish_reason is not None or result.error is not None
