"""What a streaming client is told while its request waits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from periscope.core import (
    GenerationRequest,
    OutputEvent,
    TextDelta,
    Waiting,
    WaitStatus,
)
from periscope.errors import ServerBusy
from tests.api.driving import FINISHED, HELLO, LONG_S, SHORT_S, STREAM, FakeBackend, app_over, in_loop, post_chat
from tests.api.exchange import Exchange, chunks_of
from tests.api.gates import Gate


@in_loop
async def test_wait_states_are_told_and_repeated() -> None:
    """What a request waits for stands in a chunk every SDK reads as empty, and in each heartbeat until the answer."""
    gates = [Gate(), Gate()]
    backend = FakeBackend(
        Waiting(WaitStatus.LOADING), gates[0], Waiting(WaitStatus.CAPTIONING), TextDelta("a"), gates[1], FINISHED
    )
    exchange = Exchange(app_over(backend, heartbeat_s=SHORT_S), STREAM)
    await exchange.status()
    await exchange.frame()
    for _ in range(3):
        chunk = await exchange.chunk()
        assert chunk["periscope"] == {"status": "loading"}
        assert chunk["choices"][0]["delta"] == {}
    gates[0].opened.set()
    while (chunk := await exchange.chunk())["periscope"]["status"] == "loading":
        pass
    assert chunk["periscope"] == {"status": "captioning"}
    assert await exchange.delta() == {"content": "a"}
    assert "periscope" not in await exchange.chunk()
    gates[1].opened.set()
    await exchange.task


@in_loop
async def test_wait_states_and_heartbeats_as_comments() -> None:
    """By setting, they are comments, and every chunk is part of the answer."""
    gates = [Gate(), Gate()]
    loading = Waiting(WaitStatus.LOADING, "org/text\n", 2, 0.417, 3.2)
    backend = FakeBackend(loading, gates[0], TextDelta("a"), gates[1], FINISHED)
    exchange = Exchange(app_over(backend, heartbeat_s=SHORT_S, status_as_comments=True), STREAM)
    await exchange.status()
    await exchange.frame()
    told = ": status loading, model org/text?, position 2, progress 0.42, eta_s 4\n\n"
    assert await exchange.frame() == told
    gates[0].opened.set()
    while not (frame := await exchange.frame()).startswith("data:"):
        assert frame == told
    assert await exchange.frame() == ": keep-alive\n\n"
    gates[1].opened.set()
    assert len(chunks_of(await exchange.rest())) == 1


@pytest.mark.parametrize(
    ("waiting", "told"),
    [
        (Waiting(WaitStatus.CAPTIONING, "eyes"), {"status": "captioning", "model": "eyes"}),
        (
            Waiting(WaitStatus.CAPTIONING, "eyes", num_done=2, num_total=3),
            {"status": "captioning", "model": "eyes", "done": 2, "total": 3},
        ),
        (
            Waiting(WaitStatus.QUEUED, "m", 3, eta_s=0.01),
            {"status": "queued", "model": "m", "position": 3, "eta_s": 1},
        ),
        (
            Waiting(WaitStatus.WAITING_FOR_MODEL, "m", 1),
            {"status": "waiting_for_model", "model": "m", "position": 1},
        ),
        (
            Waiting(WaitStatus.LOADING, "m", 1, 0.0, 12.0),
            {"status": "loading", "model": "m", "position": 1, "progress": 0.0, "eta_s": 12},
        ),
        (Waiting(WaitStatus.LOADING, "m", progress=1 / 3), {"status": "loading", "model": "m", "progress": 0.33}),
        (Waiting(WaitStatus.LOADING, "m", eta_s=float("inf")), {"status": "loading", "model": "m"}),
    ],
)
@in_loop
async def test_a_wait_says_what_is_known_of_it(waiting: Waiting, told: dict[str, object]) -> None:
    """Model, place, share and whole seconds stand there when they are known, and are absent when not."""
    chunks = chunks_of((await post_chat(FakeBackend(waiting, TextDelta("a"), FINISHED), STREAM)).text)
    assert [c["periscope"] for c in chunks if "periscope" in c] == [told]


@in_loop
async def test_only_news_of_a_wait_are_sent() -> None:
    """A thousand reports of a load are a chunk for each percent at most, and the last one is among them."""
    gates = [Gate() for _ in range(1000)]
    steps = [(Waiting(WaitStatus.LOADING, "m", progress=n / 1000), gate) for n, gate in enumerate(gates, 1)]
    backend = FakeBackend(*[step for pair in steps for step in pair], TextDelta("a"), FINISHED)
    exchange = Exchange(app_over(backend, commit_grace_s=SHORT_S, heartbeat_s=LONG_S), STREAM)
    await exchange.status()
    for gate in gates:
        await gate.reached.wait()
        gate.opened.set()
    told = [c["periscope"]["progress"] for c in chunks_of(await exchange.rest()) if "periscope" in c]
    assert told == sorted(set(told))
    assert told[-1] == 1.0


@in_loop
async def test_waits_in_the_grace_neither_prolong_it_nor_get_lost() -> None:
    """A backend that reports without end does not keep the headers back; what it waits for follows the role."""

    class Restless(FakeBackend):
        async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
            async for event in super().stream(request):
                yield event
            position = 1_000_000
            while not opened.is_set():
                position -= 1
                yield Waiting(WaitStatus.QUEUED, position=position)
                await asyncio.sleep(0)
            yield FINISHED

    opened = asyncio.Event()
    restless = Restless(Waiting(WaitStatus.CAPTIONING))
    exchange = Exchange(app_over(restless, commit_grace_s=SHORT_S, heartbeat_s=LONG_S), STREAM)
    assert await exchange.status() == 200
    assert (await exchange.chunk())["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert (await exchange.chunk())["periscope"]["status"] == "queued"
    opened.set()
    assert (await exchange.rest()).endswith("data: [DONE]\n\n")


@in_loop
async def test_of_the_waits_in_the_grace_the_newest_is_told() -> None:
    """When the stream opens, what was waited for before is history."""
    gate = Gate()
    waits = [Waiting(WaitStatus.CAPTIONING), Waiting(WaitStatus.QUEUED, position=1)]
    backend = FakeBackend(waits[0], gate, waits[1], TextDelta("a"), FINISHED)
    exchange = Exchange(app_over(backend, commit_grace_s=LONG_S, heartbeat_s=LONG_S), STREAM)
    await gate.reached.wait()
    for _ in range(10):  # the first one is taken
        await asyncio.sleep(0)
    gate.opened.set()
    assert await exchange.status() == 200
    chunks = chunks_of(await exchange.rest())
    assert [c["periscope"]["status"] for c in chunks if "periscope" in c] == ["queued"]


@pytest.mark.parametrize("body", [HELLO, STREAM], ids=["whole", "stream"])
@pytest.mark.parametrize("before", [[], [Waiting(WaitStatus.CAPTIONING)], [Waiting(WaitStatus.QUEUED)] * 50])
@in_loop
async def test_a_full_queue_is_a_503_that_says_when(body: dict[str, object], before: list[Waiting]) -> None:
    """What is refused within the grace has its status and Retry-After, whatever it waited for till then."""
    backend = FakeBackend(*before, ServerBusy("Full.", retry_after_s=7))
    response = await post_chat(backend, body, commit_grace_s=LONG_S, heartbeat_s=LONG_S)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert response.json()["error"]["code"] == "server_busy"


@in_loop
async def test_a_wait_that_times_out_later_is_an_event() -> None:
    """Status and headers are long sent then: the stream ends with the error, which says when to try again."""
    gate = Gate()
    backend = FakeBackend(Waiting(WaitStatus.QUEUED, "m", 4), gate, ServerBusy("Waited.", retry_after_s=7))
    exchange = Exchange(app_over(backend, commit_grace_s=SHORT_S, heartbeat_s=LONG_S), STREAM)
    assert await exchange.status() == 200
    gate.opened.set()
    *_, failure = chunks_of(await exchange.rest())
    assert failure["error"]["code"] == "server_busy"
    assert failure["error"]["retry_after"] == 7
