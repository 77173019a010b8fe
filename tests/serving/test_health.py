"""The health of the server."""

from __future__ import annotations

import asyncio
from pathlib import Path

from periscope.serving.health import HealthStatus
from tests.serving.rooms import Rooms, events_of, finished, request, user, with_rooms


def test_a_server_is_ready_when_its_default_model_was_loaded_at_start_and_stays_so(tiny_text_model: Path) -> None:
    """The server is starting until the default model is loaded; later loads and unloads do not change its health."""

    async def use(rooms: Rooms) -> None:
        rooms.load_gate.clear()
        loading = asyncio.create_task(rooms.pool.preload(["seeing", "blind"]))
        await asyncio.sleep(0)
        while rooms.pool.status("blind").state != "loading":
            assert rooms.service.health().status is HealthStatus.STARTING
            await asyncio.sleep(0)
        rooms.load_gate.set()
        await loading
        assert rooms.service.health().status is HealthStatus.READY
        rooms.pool.start_unload("seeing")
        await rooms.pool.unloaded("seeing")
        rooms.load_gate.clear()
        waiting = asyncio.create_task(events_of(rooms, request(user("hi"))))
        while rooms.pool.status("seeing").state != "loading":
            await asyncio.sleep(0)
        assert rooms.service.health().status is HealthStatus.READY
        rooms.load_gate.set()
        assert finished(await waiting)

    with_rooms(tiny_text_model, use)
