"""When readers are told of their tokens: at once, or those of short steps together, and nothing twice or never."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable

import pytest

from periscope.core import FinishReason
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.text.detokenizer import StopStrings
from periscope.engine.worker.contracts import Sampled
from periscope.engine.worker.host import HostedEngine
from periscope.engine.worker.live_rows import LiveRow, LiveRows
from periscope.engine.worker.reports import Failure, Report
from periscope.engine.worker.stream import TokenStream
from periscope.errors import GenerationFailed
from tests.engine.device.test_turn import until_waiting
from tests.engine.worker.scripted import GOOD_PROMPT, PARAMS, Letters, Script, explode, say, text_of, with_worker

INTERVAL_S = 0.010
STEP_S = 0.002


class Rows:
    """Live rows whose steps take as long as a test says, by a clock that only they advance."""

    def __init__(self, interval_s: float = INTERVAL_S) -> None:
        self._now = 0.0
        self.live = LiveRows(interval_s, lambda: self._now)

    def admit(self, row_id: int, *stops: str) -> None:
        self.live.add(row_id, LiveRow(TokenStream(asyncio.get_running_loop()), Letters(), StopStrings(stops)))

    def step(self, *results: Sampled, takes_s: float = STEP_S) -> list[list[Report]] | None:
        """What readers are told after the step; None = nothing yet."""
        began = self._now
        self._now += takes_s
        return [reports for _, reports in self.live.take_reports()[0]] if self.live.hold(results, began) else None


def in_loop(use: Callable[[], None]) -> None:
    async def run() -> None:
        use()

    asyncio.run(run())


def texts(told: list[list[Report]] | None) -> list[str] | None:
    """The text of each reader's reports; "!" = a failure."""
    if told is None:
        return None
    return ["".join("!" if isinstance(each, Failure) else each.text for each in reports) for reports in told]


def test_tokens_of_short_steps_are_told_together_and_the_first_at_once() -> None:
    """After the first token, readers are told when another step would exceed the interval."""

    def use() -> None:
        rows = Rows()
        rows.admit(1)
        told = [texts(rows.step(Sampled(1, token))) for token in range(9)]
        assert told == [["a"], None, None, None, ["bcde"], None, None, None, ["fghi"]]

    in_loop(use)


def test_a_step_as_long_as_the_interval_is_told_by_itself() -> None:
    """A model that is slower than the interval has each token told at once."""

    def use() -> None:
        rows = Rows()
        rows.admit(1)
        assert [texts(rows.step(Sampled(1, token), takes_s=INTERVAL_S)) for token in range(3)] == [["a"], ["b"], ["c"]]

    in_loop(use)


@pytest.mark.parametrize("news", ["begins", "ends", "fails"])
def test_a_row_that_begins_or_ends_has_all_told(news: str) -> None:
    """The tokens of a step belong together: with the news of one row, the others' are told, too."""

    def use() -> None:
        rows = Rows(math.inf)
        rows.admit(1)
        rows.step(Sampled(1, 0))
        if news != "begins":
            rows.admit(2)
            rows.step(Sampled(1, 0), Sampled(2, 0))
        assert rows.step(Sampled(1, 1)) is None
        if news == "begins":
            rows.admit(2)
        reason = FinishReason.LENGTH if news == "ends" else None
        error = MemoryError("no room") if news == "fails" else None
        assert texts(rows.step(Sampled(1, 2), Sampled(2, 3, finish_reason=reason, error=error))) == [
            "bc",
            "!" if news == "fails" else "d",
        ]
        assert list(rows.live) == ([1, 2] if news == "begins" else [1])

    in_loop(use)


def test_nothing_follows_a_stop_string_that_is_found_late() -> None:
    """Tokens that the batch sampled before the stop string was noticed are not told, and the batch is to stop."""

    def use() -> None:
        rows = Rows(math.inf)
        rows.admit(1, "c")
        rows.step(Sampled(1, 0))
        for token in (1, 2, 3):
            assert rows.step(Sampled(1, token)) is None
        ((_, reports),), given_up = rows.live.take_reports()
        assert texts([reports]) == ["b"]
        assert [not isinstance(each, Failure) and each.finish_reason for each in reports] == [None, FinishReason.STOP]
        assert (given_up, len(rows.live)) == ([1], 0)

    in_loop(use)


def test_a_stop_string_found_with_the_last_token_leaves_nothing_to_remove() -> None:
    """The batch has removed the row by itself when its last token is held beside the stop string."""

    def use() -> None:
        rows = Rows(math.inf)
        rows.admit(1, "b")
        rows.step(Sampled(1, 0))
        rows.live.hold([Sampled(1, 1)], 0.0)
        assert rows.live.hold([Sampled(1, 2, finish_reason=FinishReason.LENGTH)], 0.0)
        assert rows.live.take_reports()[1] == []

    in_loop(use)


def test_rows_without_tokens_are_told_nothing_and_unknown_rows_are_ignored() -> None:
    """A row that still waits for its prefill has no part in what is told."""

    def use() -> None:
        rows = Rows()
        rows.admit(1)
        rows.admit(2)
        assert texts(rows.step(Sampled(1, 0), Sampled(3, 0))) == ["a"]
        assert rows.step(Sampled(3, 1), takes_s=INTERVAL_S) is None

    in_loop(use)


def test_all_tokens_arrive_whatever_the_interval() -> None:
    """An answer is the same, token for token, if its tokens are told together."""

    async def use(host: HostedEngine) -> None:
        chunks = [chunk async for chunk in host.submit(GOOD_PROMPT, PARAMS)]
        assert [(chunk.text, chunk.token_ids) for chunk in chunks] == [("b", (1,)), ("c", (2,)), ("d", (3,))]

    for interval_s in (0.0, math.inf):
        with_worker(Script([say(1), say(2), say(3, FinishReason.LENGTH)]), use, report_interval_s=interval_s)


def test_a_failing_step_loses_no_token_of_the_steps_before() -> None:
    """What was held when the batch was lost is told before the error."""

    async def use(host: HostedEngine) -> None:
        told: list[str] = []

        stream = host.submit(GOOD_PROMPT, PARAMS)

        async def read() -> None:
            while True:
                told.append((await anext(stream)).text)

        with pytest.raises(GenerationFailed, match="MemoryError"):
            await read()
        assert told == ["b", "c", "d"]

    with_worker(Script([say(1), say(2), say(3), explode]), use, report_interval_s=math.inf)


def test_a_reader_is_told_before_its_worker_waits_for_the_device() -> None:
    """Tokens are not held while another model computes."""
    turn, is_taken = DeviceTurn(), threading.Event()

    def last(rows: list[int]) -> list[Sampled]:
        return [Sampled(row, 3, finish_reason=FinishReason.LENGTH) for row in rows]

    def second(rows: list[int]) -> list[Sampled]:
        taking.start()
        until_waiting(turn, 1)
        return say(2)(rows)

    def take() -> None:
        with turn.acquire(is_background=False):
            is_taken.wait(60)

    taking = threading.Thread(target=take, daemon=True)

    async def use(host: HostedEngine) -> None:
        stream = host.submit(GOOD_PROMPT, PARAMS)
        assert [(await anext(stream)).text, (await anext(stream)).text] == ["b", "c"]
        is_taken.set()
        assert await text_of(stream) == "d"

    with_worker(Script([say(1), second, last]), use, turn, report_interval_s=math.inf)
