"""Speculative decoding: several tokens of a row are guessed, and the model verifies them in one forward pass.

Worker thread only. It changes no token: guessed tokens that the model would not have sampled are discarded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import mlx.core as mx

from periscope.engine.batch.logprobs import LazyLogprobs
from periscope.engine.batch.next_tokens import next_tokens
from periscope.engine.batch.rows import position_deltas
from periscope.engine.batch.said_tokens import SaidTokens
from periscope.engine.batch.sampling import sample

if TYPE_CHECKING:
    from periscope.engine.batch.prompt_lookup import PromptLookup
    from periscope.engine.batch.row_table import RowTable
    from periscope.engine.batch.rows import Row
    from periscope.engine.worker.contracts import DraftCounts


@dataclass(frozen=True, slots=True)
class Drafts:
    """Guesses of what follows the rows' tokens.

    Attributes:
        tokens: `(rows, most)`, lazy token ids; what stands after a row's own guesses is padding.
        lengths: how many of them are guesses, for each row.
    """

    tokens: mx.array
    lengths: Sequence[int]


class Drafter(Protocol):
    """Drafts the next tokens of rows. Shared by all batches of a model."""

    @property
    def nbytes(self) -> int:
        """Bytes of its caches."""
        ...

    def forget(self) -> None:
        """Free its caches. The next draft computes them again."""
        ...

    def new_lookup(self, num_prompt_tokens: int, prediction: Sequence[int]) -> PromptLookup | None:
        """What a row needs for its drafts, see `Row.lookup`.

        Args:
            prediction: tokens that the completion is likely to hold, by the request; may be empty.
        """
        ...

    def most_tokens(self, rows: Sequence[Row]) -> int:
        """The most tokens that it may draft for each of these rows in a step; 0 = it never will."""
        ...

    def expects(self, rows: Sequence[Row], *, are_all: bool) -> bool:
        """Whether a draft is likely to be worth it once the tokens in flight are known.

        Args:
            are_all: these rows are all that the model computes.
        """
        ...

    def propose(self, rows: Sequence[Row]) -> Drafts | None:
        """Draft what follows the rows' tokens, of which none is in flight; None = an ordinary step is better.

        No draft is longer than `row.num_left - 1`.
        """
        ...

    def note_drafted(self, drafted: Sequence[Sequence[int]]) -> None:
        """Note the token ids of the last drafts, now that they are computed."""
        ...

    def note_step(self, num_rows: int, num_drafted: int, duration_s: float) -> None:
        """Note what a step took, for so many rows with drafts of this length; 0 = an ordinary step."""
        ...


@dataclass(frozen=True, slots=True)
class Verified:
    """What one speculative step adds to a row.

    Attributes:
        tokens: those that were guessed, and the model's own after them, unless an end token comes before it; none for a
            retired row.
        logprobs: one for each token, or none.
    """

    tokens: Sequence[int]
    logprobs: Sequence[LazyLogprobs] = ()


class SpeculativeStep:
    """Runs the model once over the rows' last tokens and drafts of what follows them.

    Args:
        counts: adds what becomes of the drafts.
    """

    def __init__(
        self,
        model: Callable[..., mx.array],
        drafter: Drafter,
        counts: DraftCounts,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model = model
        self._counts = counts
        self._drafter = drafter
        self._clock = clock

    def max_tokens_per_step(self, rows: Sequence[Row]) -> int:
        """The most tokens that are added to each row's caches in one step."""
        return 1 + self._drafter.most_tokens(rows)

    def may_draft(self, rows: Sequence[Row]) -> bool:
        """Whether anything may ever be drafted for one of these rows."""
        return self._drafter.most_tokens(rows) > 0

    def expects(self, table: RowTable, *, are_all: bool) -> bool:
        """Whether the next step should wait for the tokens in flight, because a draft is likely to be worth it."""
        return table.can_rewind and self._drafter.expects(table.slots, are_all=are_all)

    def run(self, table: RowTable) -> Sequence[tuple[Row, Verified]] | None:
        """Draft what follows the rows' tokens and verify it; blocks. None = nothing was drafted, and nothing is done.

        No token may be in flight. Afterwards the caches hold all of a row's tokens but the last, and `num_launched` and
        `num_computed` count the new ones.
        """
        started = self._clock()
        slots = list(table.slots)
        drafts = self._drafter.propose(slots)
        if drafts is None:
            return None
        newest = mx.array([row.tokens[-1] for row in slots], dtype=mx.uint32)
        inputs = mx.concatenate([newest[:, None], drafts.tokens.astype(mx.uint32)], axis=1)
        logits = self._model(inputs, cache=table.layers, **position_deltas(slots))
        sampled = _sampled(slots, drafts.lengths, logits)
        mx.eval(sampled, drafts.tokens)
        lines = cast("list[list[int]]", drafts.tokens.tolist())
        drafted = [line[:length] for line, length in zip(lines, drafts.lengths, strict=True)]
        self._drafter.note_drafted(drafted)
        verified = _verified(slots, drafted, cast("list[int]", sampled.tolist()), logits)
        for row, draft, said in zip(slots, drafted, verified, strict=True):
            num_accepted = _num_equal(draft, said.tokens)
            row.note_drafts(num_accepted, len(draft) - num_accepted)
            self._counts.num_accepted += num_accepted
            self._counts.num_rejected += len(draft) - num_accepted
        table.advance_by([len(each.tokens) for each in verified], inputs.shape[1])
        self._drafter.note_step(len(slots), inputs.shape[1] - 1, self._clock() - started)
        return list(zip(slots, verified, strict=True))

    def note_step(self, num_rows: int, duration_s: float) -> None:
        """Note what an ordinary step took, whose tokens were waited for."""
        self._drafter.note_step(num_rows, 0, duration_s)


def _is_plain(row: Row) -> bool:
    """Whether its tokens depend on nothing but the logits, its sampling and its place in its thinking."""
    return row.matcher is None and not (row.penalties or row.biases or row.params.logprobs)


def _sampled(rows: Sequence[Row], lengths: Sequence[int], logits: mx.array) -> mx.array:
    """Lazy token ids: what the plain rows sample in each place of their drafts and after them, one row after the other.

    Args:
        logits: `(rows, places, vocab)`.
    """
    places, draws = [], []
    for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
        if _is_plain(row) and not row.is_retired:
            places += [index * logits.shape[1] + ahead for ahead in range(length + 1)]
            draws += [(row.sampling, row.num_launched + ahead) for ahead in range(length + 1)]
    if not places:
        mx.async_eval(logits)  # type: ignore[no-untyped-call]
        return mx.zeros((0,), dtype=mx.uint32)
    flat = logits.reshape(-1, logits.shape[-1])
    return sample(flat if len(places) == len(flat) else flat[mx.array(places)], draws)


def _verified(
    rows: Sequence[Row], drafted: Sequence[Sequence[int]], sampled: Sequence[int], logits: mx.array
) -> list[Verified]:
    """The tokens that each row samples, up to the first token that was not guessed; no tokens for retired rows.

    Args:
        sampled: see `_sampled`.
    """
    verified, start = [], 0
    for index, (row, draft) in enumerate(zip(rows, drafted, strict=True)):
        if row.is_retired:
            verified.append(Verified(()))
        elif _is_plain(row):
            verified.append(Verified(_accepted(row, sampled[start : start + len(draft) + 1], draft)))
            start += len(draft) + 1
        else:
            verified.append(_one_by_one(row, logits[index], draft))
    return verified


def _accepted(row: Row, sampled: Sequence[int], draft: Sequence[int]) -> Sequence[int]:
    """The sampled tokens up to the first that the draft does not have, with those in place that end its thinking."""
    tokens: list[int] = []
    for token in sampled:
        forced = row.forced_token(row.num_launched)
        tokens.append(token if forced is None else forced)
        if _note_token(row, tokens, draft):
            break
    return tokens


def _one_by_one(row: Row, logits: mx.array, draft: Sequence[int]) -> Verified:
    """Accept as `_accepted` does, for a row whose penalties or grammar must see each token before the next.

    Args:
        logits: `(places, vocab)`.
    """
    tokens, logprobs, said = [row.tokens[-1]], [], SaidTokens()
    for raw in logits:
        sampled = next_tokens([row], mx.array(tokens[-1:], dtype=mx.uint32), raw[None], said)
        scores = LazyLogprobs.of([row], raw[None], sampled)
        mx.eval(sampled, *scores.arrays)
        tokens.append(cast("int", sampled.item()))
        logprobs.append(scores)
        if _note_token(row, tokens[1:], draft):
            break
    return Verified(tokens[1:], logprobs)


def _num_equal(draft: Sequence[int], said: Sequence[int]) -> int:
    """How many of the drafted tokens were sampled, from the first on."""
    return sum(drafted == token for drafted, token in zip(draft, said, strict=False))


def _note_token(row: Row, tokens: Sequence[int], draft: Sequence[int]) -> bool:
    """Count the newest token of a row. Returns whether this step can give the row no further one."""
    row.num_launched += 1
    row.num_computed += 1
    row.note_newest(tokens[-1])
    is_guessed = len(tokens) <= len(draft) and tokens[-1] == draft[len(tokens) - 1]
    return not is_guessed or tokens[-1] in row.end_token_ids or row.fault is not None
