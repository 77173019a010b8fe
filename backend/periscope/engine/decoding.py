"""DecodeBatch: the rows that are past their prompt, and the steps that give each of them one token. Worker thread only.

A step starts the next forward pass before it reads the tokens of the one before, so that the device never waits for
Python.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import trim_prompt_cache

from periscope.core import FinishReason, GenerationParams, TokenLogprob, TokenText
from periscope.engine.contracts import Sampled
from periscope.engine.kv_memory import flat
from periscope.engine.logprobs import LazyLogprobs
from periscope.engine.row_caches import RowCaches, SlotCaches, free_tokens, growth_bytes, together
from periscope.engine.row_logits import masked, processed
from periscope.engine.rows import Row
from periscope.engine.sampling import GREEDY, sample

if TYPE_CHECKING:
    from periscope.engine.prompt_cache import LayerCaches
    from periscope.engine.speculation import Drafter

logger = logging.getLogger(__name__)

#: Steps between two evaluations of cache metadata. mlx-lm 0.32 leaves `left_padding` of hybrid models lazy: their
#: graph grows with every token until Metal runs out of buffers (mlx-lm#1845). Exit: when upstream evaluates it.
METADATA_EVAL_STEPS = 64
#: Taking lines out of a batch copies what is left, so those of rows that have left are computed on until they are
#: this part of all lines, or for this many steps. Beside a long row that copy takes as long as many steps: it is made
#: only when most lines are idle.
COMPACT_PART = 0.25
COMPACT_STEPS = 16
COMPACT_PART_OF_LONG = 0.6


#: Building the state of a longer row from a batch takes as long as several steps: a layer of it is copied at a time.
LONG_TOKENS = 1024


_NOBODYS_ID = -1
_NO_PARAMS = GenerationParams()

#: Takes over a state: the tokens that caches hold exactly, the caches, and what of the batch's memory is free once its
#: row is gone.
KeepState: TypeAlias = Callable[["list[int]", "LayerCaches", int], None]


class DecodeBatch:
    """Owns the decoding rows and their caches. After `step` raised, only `abandon` may be called.

    Args:
        keep: takes the state of every row that leaves.
        keeps_states: whether `keep` has any use for them; building one from a batch costs a copy.
        drafter: guesses ahead while a row is alone; the caches must be trimmable then.
    """

    def __init__(
        self,
        model: Callable[..., mx.array],
        *,
        eos_token_ids: Iterable[int],
        token_text: Callable[[int], TokenText],
        keep: KeepState,
        keeps_states: bool,
        drafter: Drafter | None = None,
    ) -> None:
        self._model = model
        self._eos = frozenset(eos_token_ids)
        self._token_text = token_text
        self._keep = keep
        self._keeps_states = keeps_states
        self._drafter = drafter
        self._rows: list[Row] = []
        self._caches: RowCaches | None = None
        self._newest: mx.array | None = None  # (rows,): each row's newest token, maybe not computed yet
        self._logprobs = LazyLogprobs()
        self._num_steps = 0
        self._num_steps_uncompacted = 0
        self._place_wanted_at = -1  # the step before which somebody last asked for room
        self._num_free = 0.0  # tokens that every row can surely take before an array grows
        self._departing: deque[_Departing] = deque()
        self._awaited: list[Row] = []  # had a token in flight when the step began
        self._told: list[Sampled] = []  # what the step has given so far

    def __len__(self) -> int:
        """Rows that have not left."""
        return len(self.rows)

    @property
    def rows(self) -> Sequence[Row]:
        """Those that have not left."""
        return [row for row in self._rows if not row.has_left]

    @property
    def nbytes(self) -> int:
        """What the caches take, padding included."""
        return sum(int(cache.nbytes) for cache in self._layers)

    @property
    def num_lines(self) -> int:
        """Lines of the caches: those of its rows, and those of rows that have left."""
        return len(self._rows)

    @property
    def _layers(self) -> list[Any]:
        return [] if self._caches is None else self._caches.layers

    def add(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        """Rows whose caches hold all of their prompt but the last token."""
        for row, _ in joining:
            row.num_held = len(row.tokens) - 1
        self._num_free = 0.0
        left = list(joining)
        if self._caches is not None and self._caches.can_replace:
            departing = {entry.row.id for entry in self._departing}
            places = [i for i, row in enumerate(self._rows) if row.has_left and row.id not in departing]
            for index in places[: len(left)]:
                self._replace(index, *left.pop(0))
        if left:
            self._append(left)

    def _replace(self, index: int, row: Row, state: LayerCaches) -> None:
        assert self._caches is not None and self._newest is not None  # noqa: S101, PT018 - there are rows
        self._caches.replace(index, state)
        self._newest[index] = row.tokens[-1]
        self._rows[index] = row

    def _append(self, joining: Sequence[tuple[Row, LayerCaches]]) -> None:
        self.compact()
        states = [state for _, state in joining]
        reach = max(row.reach for row in (*self.rows, *(row for row, _ in joining)))
        if self._caches is None:
            self._caches = together(states, reach)
        elif len(self._rows) == 1:
            self._caches = together([self._caches.extract(0), *states], reach)
        else:
            self._caches.append(states)
        tokens = mx.array([row.tokens[-1] for row, _ in joining], dtype=mx.uint32)
        self._newest = tokens if self._newest is None else mx.concatenate([self._newest, tokens])
        self._rows.extend(row for row, _ in joining)

    def make_room(self, num_tokens: int) -> bool:
        """A part of the room that a row of so many tokens will need; False when there is nothing more to do.

        Once it is all there the row joins without the others being copied. To be asked for before each step until it
        joins.
        """
        if self._caches is None or self._departing:
            return False
        if not any(row.has_left for row in self._rows):
            slots = self._caches.with_place()
            if slots is None:
                return False
            assert self._newest is not None  # noqa: S101 - there are rows
            self._caches, self._num_free = slots, 0.0
            self._rows.append(_nobody())
            self._newest = mx.concatenate([self._newest, mx.zeros((1,), dtype=mx.uint32)])
        self._place_wanted_at = self._num_steps
        return isinstance(self._caches, SlotCaches) and self._caches.grow(num_tokens)

    def finish_leaving(self) -> None:
        """Hand over the states of rows that have left, without waiting any longer."""
        while self._departing:
            self._go_on_leaving()

    def _go_on_leaving(self) -> None:
        """One layer more of the row that left first. If that fails its state is given up, and nothing else."""
        assert isinstance(self._caches, SlotCaches)  # noqa: S101 - only those are left slowly
        entry = self._departing[0]
        index = self._rows.index(entry.row)
        try:
            entry.state.append(self._caches.extract_layer(index, len(entry.tokens), len(entry.state)))
        except Exception as error:  # noqa: BLE001 - see `RowMemory.keep`
            _log_lost_state(error)
            self._departing.popleft()
            return
        if len(entry.state) == self._caches.num_layers:
            self._departing.popleft()
            self._keep(entry.tokens, entry.state, 0)

    def remove(self, ids: Iterable[int]) -> None:
        """Take rows out; their states are kept. Unknown ids are ignored."""
        gone = set(ids)
        self._leave([index for index, row in enumerate(self._rows) if row.id in gone and not row.has_left])

    def growth_bytes(self) -> int:
        """What the next step adds to the caches: 0 but for the few steps in which arrays grow."""
        num_tokens = 1 if self._drafter is None else 1 + self._drafter.num_draft_tokens
        if self._caches is None or self._num_free >= num_tokens:
            return 0
        self._num_free = free_tokens(self._caches)
        return 0 if self._num_free >= num_tokens else growth_bytes(self._caches, num_tokens)

    def read(self) -> list[Sampled]:
        """The tokens in flight; blocks until they are there. Nothing is in flight after it."""
        self._awaited, self._told = [], []
        self._read_in_flight()
        return self._told

    def preempt(self, ids: Collection[int]) -> list[Row]:
        """Take rows out without keeping their states, so that they can be computed again; nothing may be in flight."""
        preempted = [row for row in self.rows if row.id in ids]
        self._rows = [_nobody() if row in preempted else row for row in self._rows]
        if len(self):
            self.compact()
        else:
            self.abandon()
        return preempted

    def state_of(self, row: Row) -> tuple[LayerCaches, int]:
        """A copy of a row's caches, and how many tokens they hold. Shares memory until written to."""
        assert self._caches is not None  # noqa: S101 - there are rows
        return copy.deepcopy(self._caches.extract(self._rows.index(row))), row.num_held

    def settle(self) -> list[Sampled]:
        """Block until the tokens in flight are there; they are not told yet."""
        self._awaited, self._told = [row for row in self._rows if not row.is_read], []
        if self._newest is not None:
            mx.eval(self._newest)
        return self._told

    def abandon(self, error: Exception | None = None) -> list[Sampled]:
        """Let go of everything; after a failed step, what it gave before it failed, and the failure of all other rows.

        A row that had its last token in flight has left already, but has not been told.
        """
        ended = {result.row for result in self._told if _has_ended(result)}
        lost = [row for row in (*self.rows, *(row for row in self._awaited if row.has_left)) if row.id not in ended]
        told = self._told
        self._departing.clear()
        self._clear()
        return told + [Sampled(row.id, 0, error=error, is_model_failure=True) for row in lost]

    def step(self, *, waits: bool = False, may_guess: bool = True) -> list[Sampled]:
        """One token for every row, apart from rows that have just joined: theirs comes with the next step.

        More than one when a drafter guessed right.

        Args:
            waits: read what this step itself samples, too: the device is to do something else next, and nobody's token
                should wait for that.
            may_guess: a row that is alone here is the only one there is.
        """
        rows, newest, logprobs = list(self._rows), self._newest, self._logprobs
        self._awaited, self._told = [row for row in rows if not row.is_read], []
        self._leave([index for index, row in enumerate(rows) if row.is_fully_launched])
        if self._departing:
            self._go_on_leaving()
        self._compact_if_worth_it()
        drafting = self._drafting_row() if self._rows and may_guess else None
        try:
            if self._rows and drafting is None:
                self._launch()
        finally:  # also when that failed: these come from the pass before
            self._told += self._read_all(rows, self._awaited, newest, logprobs)
        if drafting is not None and not any(_has_ended(result) for result in self._told):
            self._told += self._launch_ahead(drafting)
        self._remove_ended()
        if waits:
            self._read_in_flight()
        return self._told

    def _remove_ended(self) -> None:
        self.remove(result.row for result in self._told if _has_ended(result))

    def _read_in_flight(self) -> None:
        unread = [row for row in self._rows if not row.is_read]
        self._told += self._read_all(self._rows, unread, self._newest, self._logprobs)
        self._remove_ended()

    def _read_all(
        self, rows: Sequence[Row], unread: Sequence[Row], newest: mx.array | None, logprobs: LazyLogprobs
    ) -> list[Sampled]:
        """What the newest tokens mean to the rows that have not been told."""
        if not unread or newest is None:
            return []
        facts = logprobs.read(self._token_text)
        tokens = dict(zip((row.id for row in rows), _ints(newest), strict=True))
        return [self._read(row, tokens[row.id], facts.get(row.id)) for row in unread]

    def _drafting_row(self) -> Row | None:
        """The row to guess ahead for: one that is alone, and whose sampling has no memory of its own."""
        (row, *others) = self._rows
        is_plain = not row.processors and row.matcher is None and not row.params.logprobs
        return row if self._drafter is not None and not others and is_plain and row.num_left > 1 else None

    def _launch_ahead(self, row: Row) -> list[Sampled]:
        """Verify a guess at what follows the row's tokens, of which the last is not computed; read its right part.

        While the drafter has no guess this is an ordinary step, only not overlapped.
        """
        assert self._drafter is not None  # noqa: S101 - asked for by _drafting_row
        drafted = self._drafter.propose(row.tokens, min(self._drafter.num_draft_tokens, row.num_left - 1))
        guess = mx.zeros((0,), dtype=mx.uint32) if drafted is None else drafted
        inputs = mx.concatenate([mx.array(row.tokens[-1:], dtype=mx.uint32), guess.astype(mx.uint32)])
        logits = self._model(inputs[None], cache=self._layers)[0]
        wanted = sample(logits, [(row.sampling, row.num_launched + ahead) for ahead in range(len(inputs))])
        mx.eval(wanted, guess)
        right, guessed = _ints(wanted), _ints(guess)
        if guessed:
            self._drafter.settle(guessed)
        num_right = next((i for i, (a, b) in enumerate(zip(right, guessed, strict=False)) if a != b), len(guessed))
        results = []
        for value in right[:num_right]:
            row.num_launched += 1
            results.append(self._read(row, value, None))
            if _has_ended(results[-1]):
                break
        else:
            row.num_launched += 1
            self._newest = mx.array([right[num_right]], dtype=mx.uint32)
        trim_prompt_cache(self._layers, len(guessed) - len(results))
        self._num_free = 0.0
        row.num_held += 1 + len(results)
        self._logprobs = LazyLogprobs()
        return results

    def _launch(self) -> None:
        """Start the forward pass on every row's newest token."""
        assert self._newest is not None  # noqa: S101 - there are rows
        assert self._caches is not None  # noqa: S101 - there are rows
        raw = self._model(self._newest[:, None], cache=self._caches.layers)[:, -1, :]
        self._caches.advance()
        logits = masked(self._rows, self._newest, processed(self._rows, self._newest, raw), self._eos)
        self._newest = sample(logits, [(row.sampling, row.num_launched) for row in self._rows])
        self._logprobs = LazyLogprobs.of(self._rows, raw, self._newest)
        mx.async_eval(self._newest, *self._logprobs.arrays)  # type: ignore[no-untyped-call]
        for row in self._rows:
            row.num_launched += 1
            row.num_held += 1
        self._num_steps += 1
        self._num_free -= 1
        if self._num_steps % METADATA_EVAL_STEPS == 0:
            self._eval_cache_metadata()

    def _read(self, row: Row, token: int, logprob: TokenLogprob | None) -> Sampled:
        if row.fault is not None:
            return Sampled(row.id, token, error=row.fault)
        row.tokens.append(token)
        is_eos, reason = token in self._eos, None
        if is_eos:
            reason = FinishReason.LENGTH if row.is_shortened else FinishReason.STOP
        elif row.num_read >= (row.params.max_tokens or 1):
            reason = FinishReason.LENGTH
        return Sampled(row.id, token, logprob, reason, is_eos=is_eos, num_cached_tokens=row.num_cached_tokens)

    def _leave(self, indices: Sequence[int]) -> None:
        """Nothing more for these rows; hand over the states of those that are worth keeping."""
        states = []
        for index in indices:
            row = self._rows[index]
            row.has_left, row.sampling, row.processors, row.matcher = True, GREEDY, [], None
            if self._keeps_states and row.fault is None and self._caches is not None:
                states += self._state_or_later(index, row)
        freed_bytes = 0 if len(self) else self.nbytes
        for tokens, state in states:
            self._keep(tokens, state, freed_bytes)
        if indices and not len(self):
            self.finish_leaving()
            self._clear()

    def _state_or_later(self, index: int, row: Row) -> list[tuple[list[int], LayerCaches]]:
        """What its caches hold and the caches; nothing yet if that takes long and others would wait for it."""
        assert self._caches is not None  # noqa: S101 - there are rows
        tokens = row.tokens[: row.num_held]
        if len(tokens) > LONG_TOKENS and len(self) and isinstance(self._caches, SlotCaches):
            self._departing.append(_Departing(row, tokens))
            return []
        try:
            return [(tokens, self._caches.extract(index))]
        except Exception as error:  # noqa: BLE001 - see `RowMemory.keep`
            _log_lost_state(error)
            return []

    def _compact_if_worth_it(self) -> None:
        if self._departing or self._num_steps - self._place_wanted_at <= 1:
            return  # lines that somebody still reads from, or is to get
        num_gone = len(self._rows) - len(self)
        self._num_steps_uncompacted = self._num_steps_uncompacted + 1 if num_gone else 0
        if any(len(row.tokens) > LONG_TOKENS for row in self.rows):
            is_worth_it = num_gone >= COMPACT_PART_OF_LONG * len(self._rows)
        else:
            is_worth_it = num_gone >= COMPACT_PART * len(self._rows) or self._num_steps_uncompacted >= COMPACT_STEPS
        if is_worth_it:
            self.compact()

    def compact(self) -> None:
        """Take out the lines of rows that have left."""
        self.finish_leaving()
        stay = [index for index, row in enumerate(self._rows) if not row.has_left]
        if len(stay) == len(self._rows):
            return
        assert self._newest is not None and self._caches is not None  # noqa: S101, PT018 - there are rows
        if len(stay) == 1:
            self._caches = together([self._caches.extract(stay[0])], 0)
        else:
            self._caches.keep(stay)
        self._rows = [self._rows[index] for index in stay]
        self._newest = self._newest[mx.array(stay)]
        self._num_steps_uncompacted = 0
        self._num_free = 0.0

    def _clear(self) -> None:
        self._rows, self._caches, self._newest, self._logprobs = [], None, None, LazyLogprobs()

    def _eval_cache_metadata(self) -> None:
        lazy = [getattr(cache, name, None) for cache in flat(self._layers) for name in ("left_padding", "lengths")]
        mx.eval([array for array in lazy if isinstance(array, mx.array)])


@dataclass(slots=True)
class _Departing:
    """A row that has left and whose state is handed over layer by layer. `tokens`: what the state holds."""

    row: Row
    tokens: list[int]
    state: LayerCaches = field(default_factory=list)


def _log_lost_state(error: Exception) -> None:
    logger.warning("the state of a row that has left is not kept: %s: %s", type(error).__name__, str(error))


def _nobody() -> Row:
    """Keeps an empty place; it left before it came."""
    return Row(_NOBODYS_ID, np.zeros((1,), dtype=np.uint32), [0], _NO_PARAMS, GREEDY, [], has_left=True)


def _has_ended(result: Sampled) -> bool:
    return result.finish_reason is not None or result.error is not None


def _ints(array: mx.array) -> list[int]:
    """Blocks until the array is computed."""
    return cast("list[int]", array.tolist())
