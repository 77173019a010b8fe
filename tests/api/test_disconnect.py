"""A client that leaves ends its request, wherever the request is, and leaves nothing behind.

`in_loop` checks after every test here that no task is left over.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from periscope.api.disconnect import stop, while_connected
from periscope.api.errors import ClientGone
from periscope.core import GenerationRequest, OutputEvent, TextDelta, Waiting, WaitStatus
from periscope.errors import EngineClosed
from tests.api.driving import FINISHED, HELLO, FakeBackend, app_over, in_loop
from tests.api.exchange import Exchange, chunks_of
from tests.api.gates import Gate

STREAM = HELLO | {"stream": True}
LONG: dict[str, Any] = {"heartbeat_s": 1000.0, "commit_grace_s": 1000.0}


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "before",
    [(), (Waiting(WaitStatus.LOADING),), (TextDelta("a"),), (TextDelta("a"), TextDelta("b"))],
    ids=["first", "waiting", "delta", "deltas"],
)
@in_loop
async def test_leaving_while_the_backend_works_cancels_it(body: dict[str, Any], before: tuple[Any, ...]) -> None:
    """Before the first event, while waiting, between tokens; streamed or not: CancelledError at the very await."""
    gate = Gate()
    backend = FakeBackend(*before, gate, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), body)
    await gate.reached.wait()
    assert backend.num_open == 1
    exchange.disconnect()
    await exchange.task
    assert backend.saw == [asyncio.CancelledError]
    assert backend.num_open == 0
    assert not any(message.get("more_body") is False for message in exchange.messages)


@in_loop
async def test_leaving_while_a_frame_is_sent_closes_the_backend() -> None:
    """The backend stands at a yield or a full buffer then: it is closed, not left to the garbage collector."""
    sending = Gate()
    backend = FakeBackend(*[TextDelta("a")] * 100, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), STREAM, send_gate=sending)
    await sending.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert backend.num_open == 0
    assert len(backend.saw) <= 1


@pytest.mark.parametrize("before", [(), (Waiting(WaitStatus.QUEUED),)], ids=["first", "waiting"])
@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@in_loop
async def test_a_command_cancels_a_request_that_has_sent_nothing(body: dict[str, Any], before: tuple[Any, ...]) -> None:
    """The backend cancels the task it is iterated by; the client learns that it was a command, under a 499."""
    gate = Gate()
    backend = FakeBackend(*before, gate, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), body)
    await gate.reached.wait()
    backend.tasks[0].cancel()
    assert await exchange.status() == 499
    assert json.loads(await exchange.rest())["error"] == {
        "message": "The request was cancelled by a command to the server.",
        "type": "invalid_request_error",
        "param": None,
        "code": "request_cancelled",
    }
    assert (backend.num_open, backend.saw) == (0, [asyncio.CancelledError])


@in_loop
async def test_a_command_ends_a_stream_with_an_error() -> None:
    """What was said stands; then the error and `[DONE]`, without a finish reason."""
    gate = Gate()
    backend = FakeBackend(TextDelta("a"), gate, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), STREAM)
    assert await exchange.status() == 200
    await gate.reached.wait()
    backend.tasks[0].cancel()
    rest = await exchange.rest()
    *chunks, failure = chunks_of(rest)
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None, None]
    assert failure["error"]["code"] == "request_cancelled"
    assert rest.endswith("data: [DONE]\n\n")
    assert backend.num_open == 0


@pytest.mark.parametrize("before", [(), (TextDelta("a"),)], ids=["first", "later"])
@in_loop
async def test_a_command_counts_even_if_the_clean_up_fails(
    before: tuple[Any, ...], caplog: pytest.LogCaptureFixture
) -> None:
    """The client was cancelled, whatever else broke: a 5xx would make its SDK send the request again."""
    gate = Gate()

    class Breaking(FakeBackend):
        async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
            try:
                async with aclosing(super().stream(request)) as events:
                    async for event in events:
                        yield event
            except asyncio.CancelledError:
                raise EngineClosed("Too late.") from None

    backend = Breaking(*before, gate, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), STREAM)
    await gate.reached.wait()
    backend.tasks[0].cancel()
    assert await exchange.status() == (200 if before else 499)
    assert "request_cancelled" in await exchange.rest()
    assert [record.levelno for record in caplog.records if "cleaned up" in record.message] == [logging.WARNING]


@in_loop
async def test_a_send_that_fails_closes_the_backend() -> None:
    """Servers of ASGI 2.4 tell of a client's leave by an OSError from send."""
    gate = Gate()
    backend = FakeBackend(TextDelta("a"), gate, TextDelta("b"), FINISHED)
    exchange = Exchange(app_over(backend, **LONG), STREAM)
    await exchange.status()
    await gate.reached.wait()
    exchange.send_error = BrokenPipeError()
    gate.opened.set()
    await exchange.task
    assert backend.num_open == 0


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@in_loop
async def test_clean_up_is_waited_for_and_not_cancelled_again(body: dict[str, Any]) -> None:
    """The request ends when its lease is back, even if the server's shutdown cancels it meanwhile, twice."""
    gate, cleanup = Gate(), Gate()
    backend = FakeBackend(gate, FINISHED, cleanup=cleanup)
    exchange = Exchange(app_over(backend, **LONG), body)
    await gate.reached.wait()
    exchange.disconnect()
    await cleanup.reached.wait()
    for _ in range(2):
        exchange.task.cancel()
        await asyncio.wait([exchange.task], timeout=0.001)
        assert backend.num_open == 1
    cleanup.opened.set()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert backend.saw == [asyncio.CancelledError]
    assert backend.num_open == 0


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@in_loop
async def test_cancelling_the_request_cancels_its_work(body: dict[str, Any]) -> None:
    """When uvicorn cancels what outlives its grace, the backend is closed before the request ends."""
    gate = Gate()
    backend = FakeBackend(TextDelta("a"), gate, FINISHED)
    exchange = Exchange(app_over(backend, **LONG), body)
    await gate.reached.wait()
    exchange.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await exchange.task
    assert backend.saw == [asyncio.CancelledError]
    assert backend.num_open == 0


@in_loop
async def test_leaving_while_the_body_comes_never_starts_the_backend() -> None:
    """Half a request is no request."""
    backend = FakeBackend()
    app = app_over(backend)
    exchange = Exchange(app)
    exchange._incoming.get_nowait()
    exchange.feed(b'{"messages": [', more=True)
    exchange.disconnect()
    await exchange.task
    assert not exchange.messages
    assert not backend.requests


@in_loop
async def test_a_clean_up_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody is left to tell but the log."""

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise EngineClosed("Too late.")

    async def gone() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        await while_connected(work(), gone)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING


@in_loop
async def test_a_result_wins_over_a_disconnect() -> None:
    """Work that is done is delivered; it is for the server to drop it."""
    started = asyncio.Event()

    async def work() -> str:
        started.set()
        return "done"

    async def receive() -> dict[str, Any]:
        await started.wait()
        return {"type": "http.disconnect"}

    assert await while_connected(work(), receive) == "done"


@in_loop
async def test_stop_takes_tasks_in_any_state() -> None:
    """Ended, failed and not even begun: all are ended afterwards, and nothing is raised."""

    async def fail() -> None:
        raise EngineClosed("Closed.")

    begun = asyncio.create_task(asyncio.Event().wait())
    failed = asyncio.create_task(fail())
    await asyncio.wait([failed])
    fresh = asyncio.create_task(asyncio.Event().wait())
    await stop(begun, failed, fresh)
    assert begun.cancelled()
    assert fresh.cancelled()
    assert isinstance(failed.exception(), EngineClosed)


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@in_loop
async def test_a_neighbour_is_untouched(body: dict[str, Any]) -> None:
    """One client's leave is nobody else's business."""
    gates = [Gate(), Gate()]
    backends = [FakeBackend(gate, TextDelta("a"), FINISHED) for gate in gates]
    exchanges = [Exchange(app_over(backend, **LONG), body) for backend in backends]
    for gate in gates:
        await gate.reached.wait()
    exchanges[0].disconnect()
    await exchanges[0].task
    gates[1].opened.set()
    assert await exchanges[1].status() == 200
    assert "a" in await exchanges[1].rest()
