"""Stop strings of one completion. They act on the text of the answer only, not on reasoning, calls or markup."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from periscope.core import TextDelta, TokenLogprob
from periscope.engine.text.detokenizer import StopStrings

if TYPE_CHECKING:
    from periscope.parsing.contracts import Delta


class AnswerStops:
    """Owns the text that may be the beginning of a stop string, and the log-probabilities of its tokens.

    Neither a stop string nor anything after it is passed on.

    Attributes:
        found: the stop string that ended the completion; None while it goes on.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._has_stops = bool(stops)
        self._stops = StopStrings(stops)
        self._num_read = self._num_told = 0  # in characters of the answer
        self._waiting: list[tuple[int, TokenLogprob]] = []  # where the token began in the answer

    @property
    def found(self) -> str | None:
        return self._stops.found

    @property
    def is_hit(self) -> bool:
        """Whether a stop string has ended the completion."""
        return self._stops.is_hit

    def take(
        self, deltas: Sequence[Delta], logprobs: Sequence[TokenLogprob] = (), *, is_last: bool = False
    ) -> list[Delta]:
        """Take the deltas of one chunk and return those that can be passed on now.

        Log-probabilities are attached to the first text that is passed on, or come without text.
        """
        if not self._has_stops:
            return _with_logprobs(list(deltas), tuple(logprobs))
        self._waiting += [(self._num_read, entry) for entry in logprobs]
        told: list[Delta] = []
        for delta in deltas:
            if isinstance(delta, TextDelta):
                self._num_read += len(delta.text)
                self._tell(self._stops.feed(delta.text), told)
            else:
                told.append(delta)
            if self.is_hit:
                break
        if is_last and not self.is_hit:
            self._tell(self._stops.finish(), told)
        return _with_logprobs(told, self._released())

    def _tell(self, text: str, told: list[Delta]) -> None:
        self._num_told += len(text)
        if text:
            told.append(TextDelta(text))

    def _released(self) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of tokens whose text was passed on; all if no text is pending."""
        is_all = self._num_told == self._num_read
        released = tuple(entry for begin, entry in self._waiting if is_all or begin < self._num_told)
        self._waiting = self._waiting[len(released) :]
        return released


def _with_logprobs(deltas: list[Delta], logprobs: tuple[TokenLogprob, ...]) -> list[Delta]:
    if not logprobs:
        return deltas
    for at, delta in enumerate(deltas):
        if isinstance(delta, TextDelta):
            return [*deltas[:at], replace(delta, logprobs=logprobs), *deltas[at + 1 :]]
    return [TextDelta("", logprobs), *deltas]
