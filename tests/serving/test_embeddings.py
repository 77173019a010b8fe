"""EmbeddingService: the place in the queue, the lease, and what becomes of a request that is given up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from periscope.core import EmbeddingRequest, ModelKind, VisionMode
from periscope.errors import InvalidRequest, ModelNotFound, ServerStopping
from periscope.serving.embeddings import EmbeddingService
from periscope.serving.models import ModelNames, ServedEmbedder, ServedModel
from periscope.serving.requests import LiveRequests
from tests.pool.fakes import FakeModel, World, turns, until, with_world

TEXT = ServedModel("t", ("t-alias",), 0, None, VisionMode.DISABLED)
EMBEDDERS = [ServedEmbedder("e", ("o/e",), 0, 512), ServedEmbedder("f", (), 0, None)]
REQUEST = EmbeddingRequest("embd-1", "e", ("a",))


def with_service(use: Callable[[World, EmbeddingService, LiveRequests], Awaitable[None]]) -> None:
    async def run(world: World) -> None:
        requests = LiveRequests(world.bus.publish)
        await use(world, EmbeddingService(ModelNames([TEXT], EMBEDDERS), world.pool, requests), requests)

    models = [FakeModel("t"), *(FakeModel(each.name, kind=ModelKind.EMBEDDING) for each in EMBEDDERS)]
    with_world(models, run)


def test_a_request_that_waits_is_listed_and_can_be_cancelled() -> None:
    """While its model loads, too; nothing waits for the model afterwards."""

    async def use(world: World, service: EmbeddingService, requests: LiveRequests) -> None:
        world.models["e"].may_load.clear()
        asked = asyncio.create_task(service.embed(REQUEST))
        await until(lambda: bool(requests.all()) and requests.all()[0].status == "loading")
        (row,) = requests.all()
        assert (row.id, row.model, world.pool.status("e").num_waiting) == ("embd-1", "e", 1)
        requests.cancel("embd-1")
        with pytest.raises(asyncio.CancelledError):
            await asked
        await turns()
        assert (requests.all(), world.pool.status("e").num_waiting) == ((), 0)

    with_service(use)


def test_a_server_that_stops_takes_no_requests() -> None:
    """Before any model is asked for."""

    async def use(world: World, service: EmbeddingService, _requests: LiveRequests) -> None:
        service.stop_admitting()
        with pytest.raises(ServerStopping):
            await service.embed(REQUEST)
        assert world.models["e"].num_loads == 0

    with_service(use)


@pytest.mark.parametrize(("asked", "name"), [("", "e"), ("default", "e"), ("o/e", "e"), ("f", "f")])
def test_an_embedding_model_is_found(asked: str, name: str) -> None:
    """By name and alias; the first one where none is named."""
    assert ModelNames([TEXT], EMBEDDERS).resolve_embedder(asked).name == name


@pytest.mark.parametrize(
    ("embedders", "asked", "error", "told"),
    [
        (EMBEDDERS, "t-alias", InvalidRequest, "Model t answers and does not embed texts. Ask an embedding model"),
        (EMBEDDERS, "x", ModelNotFound, "no model 'x' here. Known: e, f"),
        ([], "", InvalidRequest, "Model t answers .* No embedding model is configured: add one to models.yaml"),
        ([], "x", ModelNotFound, "no model 'x' here. No embedding model is configured"),
    ],
)
def test_another_model_is_told_which_is_right(
    embedders: list[ServedEmbedder], asked: str, error: type[Exception], told: str
) -> None:
    """An error names a model that is configured, or says how to configure one."""
    with pytest.raises(error, match=told):
        ModelNames([TEXT], embedders).resolve_embedder(asked)
