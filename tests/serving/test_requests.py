"""LiveRequests: the list tells what each request waits for."""

from __future__ import annotations

import asyncio

from periscope.core import Waiting, WaitStatus
from periscope.events import Event, RequestChanged
from periscope.serving.requests import LiveRequests
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

        with requests.entered("r", "m", num_images=3) as live:
            assert told() == ("starting", None, None)
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=2, num_total=3))
            assert told() == ("captioning", 2, 3)
            live.generates()
            assert told() == ("generating", None, None)
            live.waits(Waiting(WaitStatus.CAPTIONING, "eyes", num_done=0, num_total=1))
            assert told() == ("captioning", 0, 1)
            live.generates()
            assert told() == ("generating", None, None)
        assert events[:-1] == [RequestChanged("r")] * 5

    asyncio.run(test())
