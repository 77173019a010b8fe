"""LiveRequests: the list tells what each request waits for."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from periscope.core import TRACE_PARENT, Finished, FinishReason, TraceParent, Usage, Waiting, WaitStatus
from periscope.errors import GenerationFailed
from periscope.events import Event, RequestChanged, RequestEnded
from periscope.serving.requests import Asked, LiveRequests
from periscope.status import RequestStatus


def test_a_request_tells_its_steps() -> None:
    """Captioned images, the start of generation and later waits are each in its status, and each change is an event."""

    async def test() -> None:
        events: list[Event] = []
        requests = LiveRequests(events.append)

        def told() -> tuple[str, int | None, int | None]:
            (row,) = requests.all()
            assert isinstance(row, RequestStatus)
            return row.status, row.num_done, row.num_total

        with requests.entered("r", "m", Asked(num_images=3)) as live:
            assert told() == ("starting", None, None)
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=2, num_total=3))
            assert told() == ("captioning", 2, 3)
            live.generates()
            assert told() == ("generating", None, None)
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=0, num_total=1))
            assert told() == ("captioning", 0, 1)
            live.generates()
            assert told() == ("generating", None, None)
        assert events == [RequestChanged("r")] * 5
        await asyncio.sleep(0)
        assert [type(event) for event in events[5:]] == [RequestEnded], "the end is told in the next turn of the loop"

    asyncio.run(test())


def test_the_end_of_a_request_tells_its_phases() -> None:
    """Without gaps, with the times of both rounds, its usage, and the trace that its headers named; nothing it said."""

    async def test() -> None:
        events: list[Event] = []
        requests = LiveRequests(events.append)
        TRACE_PARENT.set(TraceParent("00-" + "1" * 32 + "-" + "2" * 16 + "-01"))
        with requests.entered("r", "m") as live:
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=0, num_total=2))
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=1, num_total=2))
            live.waits(Waiting(WaitStatus.LOADING, "m", 1))
            for _ in range(2):
                live.generates()
                live.writes(is_thinking=False)
                live.writes(is_thinking=False)
            live.finished = Finished(FinishReason.STOP, Usage(3, 4, 1))
        await asyncio.sleep(0)
        ended = events[-1]
        assert isinstance(ended, RequestEnded)
        told = ended.trace
        assert [span.phase.value for span in told.phases] == [
            *("starting", "captioning", "loading"),
            *("prefill", "decode", "prefill", "decode"),
        ]
        assert all(one.ended_at == two.began_at for one, two in pairwise(told.phases))
        assert (told.usage, told.error) == (Usage(3, 4, 1), None)
        assert told.parent == TRACE_PARENT.get()

    asyncio.run(test())


@pytest.mark.parametrize(
    ("raised", "outcome", "error"),
    [
        (asyncio.CancelledError(), "cancelled", "RequestCancelled"),
        (GenerationFailed("no"), "failed", "GenerationFailed"),
    ],
)
def test_a_request_that_does_not_finish_tells_why(raised: BaseException, outcome: str, error: str) -> None:
    """By the class of the error, never by its message."""

    async def test() -> None:
        events: list[Event] = []
        with pytest.raises(type(raised)), LiveRequests(events.append).entered("r", "m"):
            raise raised
        await asyncio.sleep(0)
        ended = events[-1]
        assert isinstance(ended, RequestEnded)
        assert (ended.outcome, ended.trace.error) == (outcome, error)

    asyncio.run(test())
