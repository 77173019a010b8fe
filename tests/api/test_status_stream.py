"""`GET /api/events`: the frames, when they come, and that no reader can hold the server up.

`in_loop` checks after every test here that no task is left over.
"""

from __future__ import annotations

import asyncio
import json
import socket
from dataclasses import replace
from typing import Any

import pytest
import uvicorn

from periscope.api.status_wire import encode_event
from periscope.errors import GenerationFailed, ServerStopping
from periscope.status import ModelDelta, ModelStateDelta, RequestDelta, RequestGone, StatusEvent
from tests.api.driving import FakeBackend, app_over, client_of, error_of, in_loop
from tests.api.exchange import Exchange
from tests.api.fake_control import ROW, SNAPSHOT, WAITER, FakeControl
from tests.api.gates import Gate

LONG_S = 1000.0
SHORT_S = 0.01
DELTA = ModelDelta(ROW)


def follow(control: FakeControl, *, heartbeat_s: float = LONG_S, **more: Any) -> Exchange:
    app = app_over(FakeBackend(), control, heartbeat_s=heartbeat_s)
    return Exchange(app, method="GET", path="/api/events", **more)


def parsed(frame: str) -> tuple[int, str, Any]:
    """A frame's id, name and data; its framing must be exact."""
    number, name, data, *rest = frame.split("\n")
    assert rest == ["", ""]
    told = number.removeprefix("id: "), name.removeprefix("event: "), data.removeprefix("data: ")
    assert f"id: {told[0]}\nevent: {told[1]}\ndata: {told[2]}\n\n" == frame
    return int(told[0]), told[1], json.loads(told[2])


@in_loop
async def test_the_snapshot_then_what_changes() -> None:
    """Events have names, whole rows and ids that grow; the stream ends when the backend has no more to tell."""
    story: list[StatusEvent] = [
        SNAPSHOT,
        ModelStateDelta("unloaded", "loading", "wanted", ROW),
        DELTA,
        RequestDelta(WAITER),
        RequestGone("chatcmpl-1", "finished"),
    ]
    control = FakeControl(*story)
    async with client_of(FakeBackend(), control) as client:
        reply = await client.get("/api/events")
    assert reply.status_code == 200
    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert reply.headers["cache-control"] == "no-cache"
    told = [parsed(f"{frame}\n\n") for frame in reply.text.removesuffix("\n\n").split("\n\n")]
    assert told == [(n, *encode_event(event)) for n, event in enumerate(story, 1)]
    assert [name for _, name, _ in told] == [
        "snapshot",
        "model.state",
        "model.changed",
        "request.changed",
        "request.end",
    ]
    assert control.num_open == 0


@in_loop
async def test_events_come_when_they_happen() -> None:
    """Nothing is held back, and silence is filled with comments that have no id."""
    gate = Gate()
    exchange = follow(FakeControl(SNAPSHOT, gate, DELTA), heartbeat_s=SHORT_S)
    assert await exchange.status() == 200
    assert parsed(await exchange.frame())[:2] == (1, "snapshot")
    for _ in range(3):
        assert await exchange.frame() == ": keep-alive\n\n"
    gate.opened.set()
    while (frame := await exchange.frame()).startswith(":"):
        pass
    assert parsed(frame)[:2] == (2, "model.changed")
    assert await exchange.rest() == ""


@pytest.mark.parametrize(("error", "status"), [(ServerStopping("Stopping."), 503), (KeyError("boom"), 500)])
@in_loop
async def test_a_refusal_has_its_own_status(error: Exception, status: int) -> None:
    """Before the snapshot an error is a plain HTTP error."""
    async with client_of(FakeBackend(), FakeControl(error)) as client:
        reply = await client.get("/api/events")
    assert reply.status_code == status
    assert error_of(reply)["message"]


@in_loop
async def test_a_failure_after_the_snapshot_ends_the_stream() -> None:
    """The body is never ended as if it were whole: a client sees a broken stream and comes again."""
    exchange = follow(FakeControl(SNAPSHOT, GenerationFailed("It broke.")))
    await exchange.task
    assert exchange.messages[-1]["more_body"] is True


@pytest.mark.parametrize("before", [[], [SNAPSHOT], [SNAPSHOT, DELTA]])
@in_loop
async def test_leaving_closes_the_backend_at_once(before: list[StatusEvent]) -> None:
    """A menubar that quits leaves no subscription behind."""
    gate = Gate()
    control = FakeControl(*before, gate)
    exchange = follow(control)
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert (control.num_open, control.saw) == (0, [asyncio.CancelledError])


@in_loop
async def test_a_send_that_fails_closes_the_backend() -> None:
    """Servers of ASGI 2.4 tell of a client's leave by an OSError from send."""
    gate = Gate()
    control = FakeControl(SNAPSHOT, gate, DELTA)
    exchange = follow(control)
    await exchange.status()
    await gate.reached.wait()
    exchange.send_error = BrokenPipeError()
    gate.opened.set()
    await exchange.task
    assert control.num_open == 0


@in_loop
async def test_nothing_is_taken_for_a_reader_that_does_not_read() -> None:
    """While a frame cannot be sent the backend is asked for a few events and no more; its own bound does the rest."""
    sending = Gate()
    control = FakeControl(SNAPSHOT, *[DELTA] * 1000)
    exchange = follow(control, send_gate=sending)
    await sending.reached.wait()
    for _ in range(200):
        await asyncio.sleep(0)
    assert control.num_told < 50
    sending.opened.set()
    assert await exchange.status() == 200
    assert (await exchange.rest()).count("event: model.changed") == 1000


@in_loop
async def test_a_reader_that_does_not_read_is_left() -> None:
    """Its task and its subscription end when the next heartbeat would be due, and the body is not ended as whole."""
    sending = Gate()
    control = FakeControl(SNAPSHOT, *[DELTA] * 1000)
    exchange = follow(control, heartbeat_s=SHORT_S, send_gate=sending)
    await exchange.task
    assert control.num_open == 0
    assert exchange.messages[-1]["more_body"] is True


@in_loop
async def test_the_server_stops_beside_a_reader_that_does_not_read() -> None:
    """Over a real socket: when the shutdown's grace has passed (here: none), the subscription is closed."""
    words = "x" * 10_000
    control = FakeControl(SNAPSHOT, *[ModelDelta(replace(ROW, error=words))] * 1000)
    config = uvicorn.Config(
        app_over(FakeBackend(), control, heartbeat_s=LONG_S),
        loop="none",
        http="h11",
        lifespan="off",
        log_config=None,
        timeout_graceful_shutdown=0,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as reader:
        server = uvicorn.Server(config)
        serving = asyncio.create_task(server._serve([listener]))
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(reader, listener.getsockname())
        await loop.sock_sendall(reader, b"GET /api/events HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert (await loop.sock_recv(reader, 12)) == b"HTTP/1.1 200"
        server.should_exit = True
        await serving
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0)
    assert 1 < control.num_told < 1001
    assert control.num_open == 0
