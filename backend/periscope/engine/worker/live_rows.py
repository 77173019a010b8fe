"""LiveRows: a worker's live requests, and when their readers are told of their tokens. Worker thread only."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periscope.core import FinishReason
from periscope.engine.worker.failures import as_generation_failure
from periscope.engine.worker.reports import Failure, TokenChunk, ends
from periscope.engine.worker.stream import put_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from periscope.engine.text.detokenizer import Detokenizer, StopStrings
    from periscope.engine.worker.contracts import Sampled
    from periscope.engine.worker.reports import Report
    from periscope.engine.worker.stream import TokenStream
    from periscope.errors import PeriscopeError


@dataclass(slots=True)
class LiveRow:
    """What the worker keeps for one live request.

    Attributes:
        held: tokens that its reader has not been told of, oldest first.
        has_begun: its reader has been told of its first token.
    """

    stream: TokenStream
    detokenizer: Detokenizer
    stops: StopStrings
    held: list[Sampled] = field(default_factory=list)
    has_begun: bool = False

    def take_reports(self) -> list[Report]:
        """What is held, as its reader is told of it; nothing follows a report that ends the row."""
        held, self.held = self.held, []
        self.has_begun = True
        reports: list[Report] = []
        for sampled in held:
            reports.append(self._report(sampled))
            if ends(reports[-1]):
                break
        return reports

    def _report(self, sampled: Sampled) -> Report:
        try:
            return Failure(as_generation_failure(sampled.error)) if sampled.error else self._chunk(sampled)
        except Exception as error:  # noqa: BLE001 - undecodable tokens fail this row only
            return Failure(as_generation_failure(error))

    def _chunk(self, sampled: Sampled) -> TokenChunk:
        """Decode one sampled token. Stop strings are matched here, so they end the row even if the batch goes on."""
        reason = sampled.finish_reason
        text = "" if sampled.is_eos else self.stops.feed(self.detokenizer.feed(sampled.token_id))
        if reason is not None and not self.stops.is_hit:
            text += self.stops.feed(self.detokenizer.finish())
            text += self.stops.finish()
        if self.stops.is_hit:
            reason = FinishReason.STOP
        return TokenChunk(
            text=text,
            token_ids=() if sampled.is_eos else (sampled.token_id,),
            num_tokens=1,
            num_cached_tokens=sampled.num_cached_tokens,
            num_accepted=sampled.num_accepted,
            num_rejected=sampled.num_rejected,
            logprobs=() if sampled.logprob is None or sampled.is_eos else (sampled.logprob,),
            prompt_logprobs=sampled.prompt_logprobs,
            finish_reason=reason,
            vectors=sampled.vectors,
        )


class LiveRows:
    """Owns the live rows of a worker by their ids. Other threads may ask how many there are.

    Telling readers wakes their event loop, which takes the interpreter lock from the worker. So tokens of short steps
    are held, and told together about every `interval_s`; but a row's first token and its end are told at once.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, interval_s: float, clock: Callable[[], float] = time.perf_counter) -> None:
        self._rows: dict[int, LiveRow] = {}
        self._interval_s = interval_s
        self._clock = clock
        self._told_at = -math.inf
        self._holds = False

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def add(self, row_id: int, row: LiveRow) -> None:
        """Add a row that has been admitted."""
        self._rows[row_id] = row

    def remove(self, row_ids: Iterable[int]) -> None:
        """Forget rows; their readers are told nothing more."""
        for row_id in row_ids:
            self._rows.pop(row_id, None)

    @property
    def abandoned(self) -> list[int]:
        """The rows whose readers have given up."""
        return [row_id for row_id, row in self._rows.items() if row.stream.is_abandoned]

    def of(self, stream: TokenStream) -> list[int]:
        """The rows whose reader this is."""
        return [row_id for row_id, row in self._rows.items() if row.stream is stream]

    @property
    def holds(self) -> bool:
        """Whether something is held."""
        return self._holds

    def hold(self, results: Sequence[Sampled], began: float) -> bool:
        """Hold what a step has sampled. Unknown rows are ignored.

        Args:
            began: when the step began, by the clock.

        Returns:
            Whether what is held should be told now: a row begins or ends, or after another step like this one the
            interval would be over.
        """
        is_due = False
        for sampled in results:
            row = self._rows.get(sampled.row)
            if row is None:
                continue
            row.held.append(sampled)
            self._holds = True
            is_due = is_due or not row.has_begun or sampled.finish_reason is not None or sampled.error is not None
        if not self._holds:
            return False
        now = self._clock()
        return is_due or 2 * now - began >= self._told_at + self._interval_s

    def take_reports(self) -> tuple[list[tuple[TokenStream, list[Report]]], list[int]]:
        """Take what is held and remove the rows that it ends.

        Returns:
            What to tell each reader, and the rows that end although the batch goes on with them.
        """
        self._holds, self._told_at = False, self._clock()
        told: list[tuple[TokenStream, list[Report]]] = []
        given_up: list[int] = []
        for row_id, row in list(self._rows.items()):
            if not row.held:
                continue
            newest = row.held[-1]
            reports = row.take_reports()
            told.append((row.stream, reports))
            if ends(reports[-1]):
                del self._rows[row_id]
                if newest.finish_reason is None and newest.error is None:  # else the batch has removed it already
                    given_up.append(row_id)
        return told, given_up

    def fail(self, error: PeriscopeError) -> None:
        """Tell every reader what is held, then the error. No row is left."""
        put_all((row.stream, [*row.take_reports(), Failure(error)]) for row in self._rows.values())
        self._rows.clear()
        self._holds = False
