"""Three models and memory for one, over HTTP: switches, full queues, cancellations, and what is told of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import RunningServer, start_server

NAMES = ("a", "b", "c")
#: The demo's text model three times (6.3 MB and 16 MB for its KV caches), and room for one and a half.
CONFIG = """\
memory: {budget: 34MB}
server: {heartbeat_s: 0.5, limits: {max_waiting: %d, wait_timeout_s: %s}}
models:
"""
MODEL = "  - {name: %s, local_path: 'embedded:text', params: {mem: 16, max_num_seqs: %d, temperature: 0}}\n"
#: Never ends by itself: the bias keeps the end token out.
LONG = {"messages": [{"role": "user", "content": "Hello"}], "logit_bias": {"2": -100, "0": -100}}


def short(model: str) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": "What are you?"}], "max_tokens": 12}


def server_of(folder: Path, *, max_waiting: int, wait_timeout: str, max_num_seqs: int) -> RunningServer:
    file = folder / "models.yaml"
    models = "".join(MODEL % (name, max_num_seqs) for name in NAMES)
    file.write_text(CONFIG % (max_waiting, wait_timeout) + models)
    return start_server(file, log=folder / "server.log")


@pytest.fixture(scope="module")
def roomy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Queues that take everybody."""
    running = server_of(tmp_path_factory.mktemp("roomy"), max_waiting=60, wait_timeout="60s", max_num_seqs=8)
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One place in each batch, ten in each queue, and little patience."""
    running = server_of(tmp_path_factory.mktemp("narrow"), max_waiting=10, wait_timeout="3s", max_num_seqs=1)
    yield running
    assert running.stop() == 0


@asynccontextmanager
async def http(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    async with asyncio.timeout(110), httpx.AsyncClient(base_url=server.url, timeout=100) as client:
        yield client


async def told(client: httpx.AsyncClient, until: asyncio.Event) -> list[tuple[str, dict[str, Any]]]:
    """What `/api/events` says until the event is set; it is read to the last line that came before."""
    events: list[tuple[str, dict[str, Any]]] = []
    async with client.stream("GET", "/api/events") as response:
        name = ""
        async for line in response.aiter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                events.append((name, json.loads(line.removeprefix("data: "))))
            if line.startswith(":") and until.is_set():  # a heartbeat: nothing was left to say
                break
    return events


def test_sixty_requests_over_three_models_with_room_for_one(roomy: RunningServer) -> None:
    """All are answered, in order per model, with few loads; events tell each load and each request's end."""

    async def run() -> None:
        async with http(roomy) as client:
            done = asyncio.Event()
            watching = asyncio.create_task(told(client, done))

            async def user(number: int) -> list[httpx.Response]:
                names = [NAMES[(number + turn * 7) % 3] for turn in range(5)]
                return [await client.post("/v1/chat/completions", json=short(name)) for name in names]

            answers = [answer for all_of_one in await asyncio.gather(*map(user, range(12))) for answer in all_of_one]
            done.set()
            events = await watching
            assert [answer.status_code for answer in answers] == [200] * 60
            assert len({answer.json()["choices"][0]["message"]["content"] for answer in answers}) == 1
            check_story(events)

    asyncio.run(run())


def check_story(events: list[tuple[str, dict[str, Any]]]) -> None:
    assert events[0][0] == "snapshot"
    requests = [data for name, data in events if name == "request.changed"]
    for model in NAMES:
        of_model = [data for data in requests if data["model"] == model]
        come = list(dict.fromkeys(data["id"] for data in of_model))
        served = list(dict.fromkeys(data["id"] for data in of_model if data["status"] == "generating"))
        assert come == served
    assert [data["outcome"] for name, data in events if name == "request.end"] == ["finished"] * 60
    ready = [data["id"] for name, data in events if name == "model.state" and data["to"] == "ready"]
    assert set(ready) == set(NAMES)
    assert len(ready) <= 15  # five rounds of three
    held = [data["held_bytes"] for name, data in events if name == "model.state"]
    assert max(held) <= 34_000_000


def test_a_switch_is_told_in_the_stream(roomy: RunningServer) -> None:
    """While another model finishes its requests a stream says that it waits, without content; then it answers."""
    body = short("b") | {"stream": True}

    async def run() -> None:
        async with http(roomy) as client, AsyncExitStack() as stack:
            await stack.enter_async_context(held(client, "a"))
            statuses, text = [], ""
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                async for line in response.aiter_lines():
                    if line.startswith("data: {"):
                        chunk = json.loads(line.removeprefix("data: "))
                        statuses += [chunk["periscope"]["status"]] if "periscope" in chunk else []
                        text += "".join(choice["delta"].get("content") or "" for choice in chunk["choices"])
                    if "waiting_for_model" in statuses:
                        await stack.aclose()
            assert set(statuses) <= {"waiting_for_model", "loading", "queued"}
            assert text
            states = {row["id"]: row["state"] for row in (await client.get("/api/status")).json()["models"]}
            assert states == {"a": "unloaded", "b": "ready", "c": "unloaded"}

    asyncio.run(run())


@asynccontextmanager
async def held(client: httpx.AsyncClient, model: str) -> AsyncIterator[None]:
    """The one place in a model's batch is taken while inside, by a stream that is read."""
    started = asyncio.Event()

    async def read() -> None:
        body = LONG | {"model": model, "stream": True}
        async with client.stream("POST", "/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if '"content":' in line and '"role"' not in line:
                    started.set()

    reading = asyncio.create_task(read())
    await started.wait()
    yield
    assert not reading.done()
    reading.cancel()
    await asyncio.wait({reading})


async def waiting_ids(client: httpx.AsyncClient, count: int) -> list[str]:
    """The ids of those in the queue, once there are so many."""
    while True:
        rows = (await client.get("/api/requests")).json()["requests"]
        queued = [row["id"] for row in rows if row["status"] == "queued"]
        if len(queued) == count:
            return queued


def test_the_eleventh_waiting_request_is_refused_at_once(narrow: RunningServer) -> None:
    """503 with Retry-After while ten wait; a cancelled one is told and frees its place; the others time out."""

    async def run() -> None:
        async with http(narrow) as client, held(client, "a"):
            waiting = [asyncio.create_task(client.post("/v1/chat/completions", json=short("a"))) for _ in range(10)]
            ids = await waiting_ids(client, 10)
            refused = await client.post("/v1/chat/completions", json=short("a"))
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_busy")
            assert int(refused.headers["retry-after"]) >= 1
            assert (await client.post(f"/api/requests/{ids[0]}/cancel")).status_code == 200
            await waiting_ids(client, 9)
            late = asyncio.create_task(client.post("/v1/chat/completions", json=short("a")))
            answers = await asyncio.gather(*waiting, late)
            assert sorted(answer.status_code for answer in answers) == [499] + [503] * 10
            assert {answer.json()["error"]["code"] for answer in answers} == {"request_cancelled", "server_busy"}
            assert all("retry-after" in answer.headers for answer in answers if answer.status_code == 503)

    asyncio.run(run())


def test_a_running_request_is_cancelled_by_command(narrow: RunningServer) -> None:
    """A stream in the middle of its answer ends with an error event, and its place is free."""

    async def run() -> None:
        async with http(narrow) as client:
            body = LONG | {"model": "a", "stream": True}
            async with client.stream("POST", "/v1/chat/completions", json=body) as response:
                lines = response.aiter_lines()
                async for line in lines:
                    if '"content":' in line and '"role"' not in line:
                        break
                (row,) = (await client.get("/api/requests")).json()["requests"]
                assert row["status"] == "generating"
                await client.post(f"/api/requests/{row['id']}/cancel")
                rest = [line async for line in lines]
            assert any("request_cancelled" in line for line in rest)
            assert (await client.post("/v1/chat/completions", json=short("a"))).status_code == 200

    asyncio.run(run())


def test_an_impatient_client_leaves_no_ghost_in_the_queue(narrow: RunningServer) -> None:
    """Who hangs up while waiting is out of the queue, so that the next one moves up."""

    async def run() -> None:
        async with http(narrow) as client, held(client, "a"):
            leaving = asyncio.create_task(client.post("/v1/chat/completions", json=short("a")))
            await waiting_ids(client, 1)
            leaving.cancel()
            await waiting_ids(client, 0)

    asyncio.run(run())


def test_selecting_switches_what_default_means(narrow: RunningServer) -> None:
    """After `POST /v1/models/select` a request that names no model is answered by the selected one."""

    async def run() -> None:
        async with http(narrow) as client:
            for name in ("c", "a"):
                selected = await client.post("/v1/models/select", json={"model": name, "wait": True})
                assert (selected.json()["id"], selected.json()["state"]) == (name, "ready")
                answer = await client.post("/v1/chat/completions", json=short("default"))
                assert answer.json()["model"] == name

    asyncio.run(run())


def test_an_unknown_model_is_not_found(narrow: RunningServer) -> None:
    """Commands and requests for it are 404, in the same words."""

    async def run() -> None:
        async with http(narrow) as client:
            for path in ("/v1/chat/completions", "/api/models/load", "/api/models/unload", "/v1/models/select"):
                body = short("some/model") if path.startswith("/v1/chat") else {"model": "some/model"}
                answer = await client.post(path, json=body)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")

    asyncio.run(run())
