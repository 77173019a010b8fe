"""LookupDrafter: drafts from what rows have generated before, as far as it pays. Worker thread only."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Final

import mlx.core as mx

from periscope.engine.batch.prompt_lookup import PromptLookup
from periscope.engine.batch.speculation import Drafts

if TYPE_CHECKING:
    from periscope.engine.batch.rows import Row

#: Lengths of drafts; few, because each is a shape for which the device compiles kernels.
LENGTHS: Final = (1, 2, 3, 4, 6, 8, 12, 16)
#: Tokens of all rows in one forward pass, so that their logits stay small beside a prefill chunk's work.
MAX_PASS_TOKENS: Final = 64
#: A draft is worth it if it gives more tokens per time than ordinary steps, by this factor.
_WORTH: Final = 1.08
#: What a speculative step takes, in ordinary steps: in itself, because it is waited for, and for each token drafted for
#: one row. With more rows a token takes this power of their number as much. Measured on a CPU, with models of 1 to 135
#: million parameters; what a token takes here is measured as it goes.
_STEP_COST: Final = 1.08
_TOKEN_COST: Final = 0.055
_ROWS_POWER: Final = 0.7
_LEAST_TOKEN_COST: Final = 0.005
#: Weights of the newest measurements, and how far one may be from what is known: a step may have waited for others.
_NEWEST_PART: Final = 1 / 8
_OUTLIER: Final = 3.0
#: In how many ordinary steps what was measured of speculative ones is forgotten, so that they are tried again.
_FORGOTTEN_STEPS: Final = 512


def best_length(chances: Sequence[Sequence[float]], token_cost: float = _TOKEN_COST, at_most: int = LENGTHS[-1]) -> int:
    """Pure: of how many tokens the drafts should be, so that most tokens come per time; 0 = an ordinary step is better.

    Args:
        chances: of each row, see `PromptLookup.chances`; no more than the longest draft has.
        token_cost: what each token of the drafts takes, in ordinary steps.
    """
    by_place = [0.0] * LENGTHS[-1]
    for each in chances:
        for place, chance in enumerate(each):
            by_place[place] += chance
    accepted = list(accumulate(by_place))
    best, length = _WORTH, 0
    for most in LENGTHS:
        if most > at_most:
            break
        gain = (1 + accepted[most - 1] / len(chances)) / (_STEP_COST + token_cost * most)
        if gain > best:
            best, length = gain, most
    return length


class _Pace:
    """What steps of batches of one size take. Has no clock.

    Attributes:
        token_cost: see `best_length`.
    """

    def __init__(self, num_rows: int) -> None:
        self._known_cost = _TOKEN_COST * num_rows**_ROWS_POWER
        self.token_cost = self._known_cost
        self._step_s: float | None = None
        self._tried: set[int] = set()  # lengths of drafts that the device has computed before

    def note(self, num_drafted: int, duration_s: float) -> None:
        """Note a step with drafts of this length."""
        if not num_drafted:
            known_s = duration_s if self._step_s is None else self._step_s
            self._step_s = known_s + _NEWEST_PART * (min(duration_s, _OUTLIER * known_s) - known_s)
            self.token_cost += (self._known_cost - self.token_cost) / _FORGOTTEN_STEPS
        elif num_drafted not in self._tried:  # the first one may have compiled kernels
            self._tried.add(num_drafted)
        elif self._step_s is not None:
            cost = (duration_s / self._step_s - _STEP_COST) / num_drafted
            bounded = min(max(cost, _LEAST_TOKEN_COST), _OUTLIER * self.token_cost)
            self.token_cost += _NEWEST_PART * (bounded - self.token_cost)


class LookupDrafter:
    """Owns what steps take with drafts and without. Rows own their guesses (`Row.lookup`). Needs no memory of its own.

    Args:
        is_always_on: also for rows without a prediction.
    """

    nbytes = 0

    def __init__(self, *, is_always_on: bool) -> None:
        self._is_always_on = is_always_on
        self._paces: dict[int, _Pace] = {}  # by the number of rows

    def forget(self) -> None:
        """There are no caches to drop."""

    def new_lookup(self, num_prompt_tokens: int, prediction: Sequence[int]) -> PromptLookup | None:
        """A new row's guesses, from its prompt, its completion and its prediction; None if it is not drafted for."""
        return PromptLookup(num_prompt_tokens, prediction) if self._is_always_on or prediction else None

    def most_tokens(self, rows: Sequence[Row]) -> int:
        """The longest draft, if one of these rows is looked up; 0 if none is."""
        return LENGTHS[-1] if any(row.lookup is not None for row in rows) else 0

    def expects(self, rows: Sequence[Row], *, are_all: bool) -> bool:  # noqa: ARG002 - it has no state of one row
        """Whether to wait for the newest tokens: if drafts are worth it should these be as guessed."""
        return bool(self._length_for(rows))

    def propose(self, rows: Sequence[Row]) -> Drafts | None:
        """The rows' guesses, as long as is best for all of them together."""
        length = self._length_for(rows)
        if not length:
            return None
        guesses = [
            [] if row.lookup is None or row.is_retired else row.lookup.guess(min(length, row.num_left - 1))
            for row in rows
        ]
        if not any(guesses):
            return None
        longest = max(map(len, guesses))
        lines = [guess + [0] * (longest - len(guess)) for guess in guesses]
        return Drafts(mx.array(lines, dtype=mx.uint32), [len(guess) for guess in guesses])

    def _length_for(self, rows: Sequence[Row]) -> int:
        chances = [_chances_of(row) for row in rows if not row.is_retired]
        if not any(chances):
            return 0
        return best_length(chances, self._pace_of(len(rows)).token_cost, MAX_PASS_TOKENS // len(rows) - 1)

    def note_drafted(self, drafted: Sequence[Sequence[int]]) -> None:
        """Rows see what came of their guesses by themselves."""

    def note_step(self, num_rows: int, num_drafted: int, duration_s: float) -> None:
        """Note what a step of so many rows took."""
        self._pace_of(num_rows).note(num_drafted, duration_s)

    def _pace_of(self, num_rows: int) -> _Pace:
        return self._paces.setdefault(num_rows, _Pace(num_rows))


def _chances_of(row: Row) -> Sequence[float]:
    """The chances of the guess that follows the token in flight, which is only right if that token is."""
    if row.lookup is None or row.num_left <= 1:
        return ()
    row.lookup.see(row.tokens)
    num_unread = row.num_launched - row.num_read
    return row.lookup.chances(min(LENGTHS[-1], row.num_left - 1) + num_unread)[num_unread:]
