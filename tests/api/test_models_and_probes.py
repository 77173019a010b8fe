"""`/v1/models` and what supervisors ask."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from periscope.core import ModelState, VisionMode
from tests.api.driving import CARD, FakeBackend, FakeHealth, client_of, error_of, in_loop
from tests.api.gates import Gate

TEXT_ONLY = replace(CARD, name="plain", aliases=("org/text",), vision=VisionMode.DISABLED, state=ModelState.UNLOADED)


@in_loop
async def test_the_list_tells_what_clients_look_for() -> None:
    """Each entry tells context, capabilities and state; a model with a captioner takes images."""
    backend = FakeBackend()
    backend.cards = (CARD, TEXT_ONLY)
    async with client_of(backend) as client:
        response = await client.get("/v1/models")
    assert response.status_code == 200
    told = response.json()
    assert told["object"] == "list"
    first, second = told["data"]
    assert first == {
        "id": "org/text",
        "object": "model",
        "created": 1_700_000_000,
        "owned_by": "periscope",
        "aliases": ["small", "tiny/alias"],
        "context_length": 4096,
        "max_model_len": 4096,
        "context_window": 4096,
        "max_context_length": 4096,
        "meta": {"n_ctx": 4096, "n_ctx_train": 32768},
        "kind": "text",
        "embedding_size": None,
        "kv_bits": 8,
        "capabilities": {"vision": "proxy", "tools": True, "reasoning": False, "batched": True},
        "input_modalities": ["text", "image"],
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
        "sampling": {"temperature": {"value": 0.6, "source": "generation_config.json"}},
        "loaded": True,
        "state": "ready",
        "error": None,
        "status": {"value": "ready"},
    }
    assert second["capabilities"]["vision"] == "none"
    assert second["input_modalities"] == ["text"]
    assert second["loaded"] is False


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("org/text", "org/text"),
        ("small", "org/text"),
        ("tiny/alias", "org/text"),
        ("org%2Ftext", "org/text"),
        ("default", "org/text"),
        ("plain", "plain"),
    ],
)
@in_loop
async def test_one_model_by_name_or_alias(name: str, found: str) -> None:
    """Slashes are part of names, and a name goes before another model's alias."""
    backend = FakeBackend()
    backend.cards = (CARD, TEXT_ONLY)
    async with client_of(backend) as client:
        response = await client.get(f"/v1/models/{name}")
    assert response.status_code == 200
    assert response.json()["id"] == found


@in_loop
async def test_default_means_the_selected_model() -> None:
    """After another was selected, `default` is that one here too, also where the file gives that alias to the first."""
    backend = FakeBackend()
    backend.cards = (replace(TEXT_ONLY, aliases=()), replace(CARD, aliases=("default",)))
    async with client_of(backend) as client:
        response = await client.get("/v1/models/default")
    assert response.json()["id"] == "plain"


@in_loop
async def test_an_unknown_model_is_404_and_names_the_others() -> None:
    """The client's user sees what there is to choose from."""
    async with client_of(FakeBackend()) as client:
        response = await client.get("/v1/models/gpt-4")
    assert response.status_code == 404
    told = error_of(response)
    assert (told["code"], told["param"]) == ("model_not_found", "model")
    assert "org/text" in told["message"]


@in_loop
async def test_models_and_health_answer_while_a_request_runs() -> None:
    """Neither waits for the backend's work."""
    gate = Gate()
    backend = FakeBackend(gate)
    async with client_of(backend) as client:
        chat = asyncio.create_task(
            client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": "x"}]})
        )
        await gate.reached.wait()
        assert (await client.get("/v1/models")).status_code == 200
        assert (await client.get("/health")).status_code == 200
        assert not chat.done()
        gate.opened.set()
        await chat


@pytest.mark.parametrize(
    ("reading", "readyz", "health"),
    [
        (FakeHealth(), 200, 200),
        (FakeHealth(status="degraded", problems=("captioner: out of memory",)), 200, 200),
        (FakeHealth(status="starting", is_ready=False), 503, 200),
        (FakeHealth(status="failed", problems=("text: no file",), is_ready=False, is_healthy=False), 503, 503),
    ],
)
@in_loop
async def test_probes(reading: FakeHealth, readyz: int, health: int) -> None:
    """Ready = will serve; healthy = nothing that waiting will not mend; live = the loop turns. A 503 says why."""
    backend = FakeBackend()
    backend.reading = reading
    async with client_of(backend) as client:
        assert (await client.get("/livez")).status_code == 200
        for path, status in (("/readyz", readyz), ("/health", health)):
            response = await client.get(path)
            assert response.status_code == status
            told = response.json()
            assert told["status"] == reading.status
            assert told["models"] == {"org/text": "ready"}
            assert told["problems"] == list(reading.problems)
            if status == 503:
                assert told["error"]["code"] == "model_unavailable"
                assert all(problem in told["error"]["message"] for problem in reading.problems)


@in_loop
async def test_a_stopping_server_is_not_ready_but_healthy() -> None:
    """Balancers look elsewhere; nobody restarts it."""
    backend = FakeBackend()
    backend.reading = FakeHealth(status="stopping", is_ready=False)
    async with client_of(backend) as client:
        response = await client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["status"] == "stopping"
        assert (await client.get("/health")).status_code == 200


@in_loop
async def test_the_root_says_who_it_is() -> None:
    """Claude Code asks HEAD / before anything else."""
    async with client_of(FakeBackend(), version="1.2.3") as client:
        assert (await client.get("/")).json() == {"name": "periscope", "version": "1.2.3"}
        assert (await client.head("/")).status_code == 200
