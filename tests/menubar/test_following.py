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


IDLE, LOADING = view(BIG), view({**BIG, "state": "loading"})


def test_each_group_of_events_is_one_look() -> None:
    """Events that come together are one change, and without events nothing is asked."""

    async def follow() -> tuple[list[str], int]:
        server = Server(IDLE, LOADING, view(model("other")))
        seen = []
        async with aclosing(views(lambda: server, pause=settle)) as changes:
            async for change in changes:
                assert change.snapshot is not None
                assert change.captions == ("A red circle.",)
                seen.append(change.snapshot.models[0].id + " " + change.snapshot.models[0].state)
                if len(seen) == 3:
                    return seen, server.num_looks
                for _ in range(5):
                    server.events_queue.put_nowait("model.changed")
        raise AssertionError

    assert asyncio.run(follow()) == (["big ready", "big loading", "other unloaded"], 3)


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
