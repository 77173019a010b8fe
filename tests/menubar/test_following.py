"""The menubar follows a server: one view for each group of changes, and one when the server is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from periscope.core import JSONObject
from periscope.errors import RemoteUnreachable
from periscope.menubar import View, views
from periscope.remote import Snapshot
from tests.menubar.snapshots import BIG, URL, model, view


class Server:
    """A server whose events come when the test says so."""

    url = URL

    def __init__(self, *states: View) -> None:
        self.states = list(states)
        self.events_queue: asyncio.Queue[str | None] = asyncio.Queue()
        self.num_looks = 0
        self.is_gone = False

    async def status(self) -> Snapshot:
        if self.is_gone:
            raise RemoteUnreachable("No server answers.")
        self.num_looks += 1
        snapshot = self.states[min(self.num_looks, len(self.states)) - 1].snapshot
        assert snapshot is not None
        return snapshot

    async def events(self) -> AsyncGenerator[tuple[str, JSONObject], None]:
        yield "snapshot", {}
        while (name := await self.events_queue.get()) is not None:
            yield name, {}

    async def recent_captions(self) -> tuple[str, ...]:
        return ("A red circle.",)

    async def page(self) -> str | None:
        return None


async def settle(_seconds: float) -> None:
    """Instead of waiting: whatever can run now runs."""
    for _ in range(20):
        await asyncio.sleep(0)


def state_of(change: View) -> str:
    assert change.snapshot is not None
    assert change.captions == ("A red circle.",)
    return f"{change.snapshot.models[0].id} {change.snapshot.models[0].state}"


IDLE, LOADING = view(BIG), view({**BIG, "state": "loading"})


def test_each_group_of_events_is_one_look() -> None:
    """What comes shortly after an event is seen in the same look, and without events nothing is asked."""

    async def follow() -> None:
        server = Server(IDLE, LOADING, view(model("other")))
        has_settled = 0

        async def pause(seconds: float) -> None:
            nonlocal has_settled
            has_settled += 1
            server.events_queue.put_nowait("model.changed")  # belongs to the group
            await settle(seconds)

        async with aclosing(views(lambda: server, pause=pause)) as changes:
            assert state_of(await anext(changes)) == "big ready"  # at once, without an event
            for expected in ("big loading", "other unloaded"):
                looking = asyncio.ensure_future(anext(changes))
                for _ in range(10):
                    await settle(0)
                assert not looking.done()
                server.events_queue.put_nowait("model.state")
                assert state_of(await looking) == expected
            assert (server.num_looks, has_settled) == (3, 2)

    asyncio.run(follow())


def test_a_server_that_ends_is_seen_and_looked_for_again() -> None:
    """Its stream ends, or it does not answer any more: the menu says so, and shows the next server that is there."""

    async def follow() -> list[bool]:
        first, second = Server(IDLE), Server(IDLE)
        found = iter([first, None, second])
        seen = []
        async with aclosing(views(lambda: next(found), has_agent=lambda: True, pause=settle)) as changes:
            async for change in changes:
                seen.append(change.snapshot is not None)
                assert change.has_agent
                if len(seen) == 4:
                    return seen
                first.is_gone = True
                first.events_queue.put_nowait(None)
        raise AssertionError

    assert asyncio.run(follow()) == [True, False, False, True]
