"""DecodeBatch: the decoding rows of one batch, and the steps that give each of them one token. Worker thread only.

A step launches the next forward pass before it reads the tokens of the previous one, so that the device never waits
for Python.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import mlx.core as mx
import numpy as np

from periscope.core import FinishReason, TokenLogprob, TokenText
from periscope.engine.batch.logprobs import LazyLogprobs
from periscope.engine.batch.row_logits import masked, processed
from periscope.engine.batch.rows import Row
from periscope.engine.batch.sampling import sample
from periscope.engine.batch.step_plan import RowView
from periscope.engine.batch.thinking import forced_tokens, with_forced
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
        speculation: used while there is only one row; needs caches that can be trimmed.
    """

    def __init__(
        self,
        model: Callable[..., mx.array],
        table: RowTable,
        *,
        token_text: Callable[[int], TokenText],
        speculation: SpeculativeStep | None = None,
    ) -> None:
        self._model = model
        self._table = table
        self._token_text = token_text
        self._speculation = speculation
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
        return self._table.growth_bytes(1 if self._speculation is None else self._speculation.max_tokens_per_step)

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

    def step(self, *, reads_now: bool = False, may_speculate: bool = True) -> list[Sampled]:
        """One token for every row, or several after a speculative step.

        Rows that have just been added get their first token with the next step.

        Args:
            reads_now: also read the tokens that this step samples. The caller sets it when the device will do other
                work next, for which these tokens should not wait.
            may_speculate: this is the model's only batch, so a single row in it decodes alone.
        """
        table = self._table
        slots, newest, logprobs = list(table.slots), table.newest, self._logprobs
        self._awaiting, self._results = self._rows_in_flight(), []
        table.retire([row for row in slots if row.is_fully_launched])
        table.export_layer()
        table.compact_if_worth_it()
        speculation = self._speculation if may_speculate else None
        speculates = speculation is not None and speculation.can_run(table.slots)
        try:
            if table.slots and not speculates:
                self._launch()
        finally:  # also when the launch failed: these tokens are those of the previous forward pass
            self._results += self._read_all(slots, self._awaiting, newest, logprobs)
        if speculation is not None and speculates and not any(_has_ended(result) for result in self._results):
            self._speculate(speculation, table.slots[0])
        self._retire_ended()
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

    def _speculate(self, speculation: SpeculativeStep, row: Row) -> None:
        """Verify a draft for the only row. The accepted tokens are read; the one after them counts as in flight."""
        verified = speculation.run(row, self._table.layers)
        for token in verified.accepted:
            row.num_launched += 1
            self._results.append(self._read(row, token, None))
        row.num_computed += 1 + len(verified.accepted)
        self._logprobs = LazyLogprobs()
        if verified.newest is not None:
            row.num_launched += 1
            self._table.advance_only(verified.newest, 1 + len(verified.accepted))

    def _launch(self) -> None:
        """Launch the forward pass over every row's newest token; does not wait for it, except for grammars."""
        slots, newest = self._table.slots, self._table.newest
        assert newest is not None  # noqa: S101 - there are rows
        raw = self._model(newest[:, None], cache=self._table.layers, **_position_deltas(slots))[:, -1, :]
        logits = masked(slots, newest, processed(slots, newest, raw))
        forced = forced_tokens(slots, newest, logits)
        sampled = with_forced(sample(logits, [(row.sampling, row.num_launched) for row in slots]), forced)
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
            prompt_logprobs=self._prompt_logprobs(row),
        )

    def _prompt_logprobs(self, row: Row) -> tuple[TokenLogprob, ...]:
        """Those of the prompt's tokens, with the first token of the row that asks for them."""
        collected, row.prompt_logprobs = row.prompt_logprobs, None
        return () if collected is None else collected.told(row.tokens[0], self._token_text)


def _position_deltas(slots: Sequence[Row]) -> dict[str, list[int]]:
    """How far the rows' positions are from their lengths, for models whose images take other positions than tokens."""
    rope_deltas = [0 if row.images is None else row.images.rope_delta for row in slots]
    return {"rope_deltas": rope_deltas} if any(rope_deltas) else {}


def _eval_cache_metadata(layers: Iterable[Any]) -> None:
    lazy = [getattr(cache, name, None) for cache in flat(layers) for name in ("left_padding", "lengths")]
    mx.eval([array for array in lazy if isinstance(array, mx.array)])


def _has_ended(result: Sampled) -> bool:
    return result.finish_reason is not None or result.error is not None
