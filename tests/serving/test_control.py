"""ControlService over a pool of fake models: its status and its commands."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import GenerationRequest, Message, ModelKind, Role, TextPart, VisionMode
from periscope.errors import (
    InvalidRequest,
    ModelLoadError,
    ModelNotFound,
    ModelPinned,
    ModelUnavailable,
    RequestNotFound,
)
from periscope.events import DEFAULT_CAPACITY, ModelChanged
from periscope.hub import Downloads
from periscope.serving.control import ControlService
from periscope.serving.health import Notices
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.status import (
    ModelDelta,
    ModelStateDelta,
    RequestDelta,
    RequestGone,
    ServerDelta,
    ServerIdentity,
    ServerStatus,
    StatusEvent,
)
from periscope.vision.proxy import VisionProxy
from tests.pool.fakes import FakeEngine, FakeModel, World, reload_nothing, turns, until, with_world


class Served:
    """A control service over the text models `a` and `b` and the captioner `eyes`."""

    def __init__(self, world: World) -> None:
        self.world = world
        texts = [ServedModel(name, (f"{name}-alias",), 0, None, VisionMode.DISABLED) for name in "ab"]
        self.names, self.requests = ModelNames(texts), LiveRequests(world.bus.publish)
        self.captions = CaptionCache()
        self.notices = Notices(world.bus.publish)
        proxy = VisionProxy(self.captions)
        self.service = ChatService(self.names, world.pool, proxy, self.requests, notices=self.notices)
        self.control = ControlService(
            self.service,
            world.pool,
            self.names,
            self.requests,
            world.bus,
            captions=self.captions,
            identity=ServerIdentity("9"),
            read_memory=lambda: (1, 2, 3),
            reload=reload_nothing,
            downloads=Downloads(world.bus.publish),
            sources=lambda asked, _: [(asked, None)],
        )

    def request(self, request_id: str) -> asyncio.Task[None]:
        """A chat request to `a`, which a task of its own iterates."""
        messages = (Message(Role.USER, (TextPart("Hello"),)),)

        async def run() -> None:
            async with aclosing(self.service.stream(GenerationRequest(request_id, "a", messages))) as events:
                async for _ in events:
                    pass

        return asyncio.create_task(run())


def with_served(use: Callable[[Served], Awaitable[None]], *, budget_bytes: int = 1000, ttl_s: float = 60.0) -> None:
    async def run(world: World) -> None:
        await use(Served(world))

    models = [
        FakeModel("a", aliases=("a-alias",), ttl_s=ttl_s),
        FakeModel("b", aliases=("b-alias",)),
        FakeModel("eyes", kind=ModelKind.CAPTIONER, aliases=("o/eyes",)),
    ]
    with_world(models, run, budget_bytes=budget_bytes)


def test_the_snapshot_has_everything() -> None:
    """It holds models with kind, default, queue, memory and countdown; requests; the ledger and the memory in use."""

    async def use(served: Served) -> None:
        await served.control.load("a-alias", wait=True)
        served.world.timers.advance(20.0)
        status = served.control.status()
        assert (status.state, status.identity.version, status.requests) == ("ready", "9", ())
        assert (status.memory.held_bytes, status.memory.budget_bytes, status.memory.active_bytes) == (100, 1000, 1)
        first, second, eyes = status.models
        assert (first.name, first.kind, first.state, first.is_default) == ("a", "text", "ready", True)
        assert (first.weights_bytes, first.idle_s, first.ttl_s, first.unload_in_s) == (100, 20.0, 60.0, 40.0)
        assert (second.state, second.held_bytes, second.weights_bytes) == ("unloaded", 0, None)
        assert eyes.kind == "captioner"

    with_served(use)


def test_a_notice_is_among_the_problems_and_watchers_hear_of_it() -> None:
    """What is wrong with the server itself is told at once, once, and taken back when it is over."""

    async def use(served: Served) -> None:
        async with aclosing(served.control.events()) as events:
            assert isinstance(await anext(events), ServerStatus)
            for sentence in ("It is late.", "It is late.", "It is later.", None):
                served.notices.put("time", sentence)
            told = [await anext(events) for _ in range(3)]
        assert [event.status.problems for event in told if isinstance(event, ServerDelta)] == [()] * 3
        served.notices.put("time", "It is late.")
        health = served.service.health()
        assert (health.status, health.problems, health.is_ready) == ("degraded", ("It is late.",), True)
        assert served.control.status().problems == ("It is late.",)

    with_served(use)


def test_a_captioner_has_aliases_too() -> None:
    """Commands accept a captioner's hub id, and the snapshot lists it."""

    async def use(served: Served) -> None:
        status = await served.control.load("o/eyes", wait=True)
        assert (status.name, status.kind, status.aliases) == ("eyes", "captioner", ("o/eyes",))

    with_served(use)


def test_events_begin_with_the_snapshot_and_tell_each_change() -> None:
    """A watcher sees the load with its progress, the queue, the request and its end, each with its state then."""

    async def use(served: Served) -> None:
        seen: list[StatusEvent] = []

        async def watch() -> None:
            async with aclosing(served.control.events()) as events:
                seen.extend([event async for event in events])

        watching = asyncio.create_task(watch())
        await turns()
        served.world.models["a"].may_load.clear()
        request = served.request("r1")
        await until(lambda: served.world.pool.status("a").state == "loading")
        await turns()
        request.cancel()
        served.world.models["a"].may_load.set()
        await until(lambda: served.world.pool.status("a").state == "ready")
        await turns()
        served.control.stop()
        await watching
        assert isinstance(seen[0], ServerStatus)
        states = [event.new for event in seen if isinstance(event, ModelStateDelta)]
        assert states == ["loading", "ready"]
        assert any(isinstance(event, ModelDelta) and event.model.load_done_bytes == 50 for event in seen)
        assert any(isinstance(event, ModelDelta) and event.model.num_waiting == 1 for event in seen)
        waits = [event.request.status for event in seen if isinstance(event, RequestDelta)]
        assert "loading" in waits
        assert RequestGone("r1", "cancelled") in seen

    with_served(use)


def test_a_model_that_cannot_be_loaded_now_is_not_selected() -> None:
    """Selecting a model within its back-off fails with the reason, waiting or not, and the default stays."""

    async def use(served: Served) -> None:
        served.world.models["b"].load_error = ModelLoadError("no such weights.")
        for wait in (True, False, True):
            with pytest.raises(ModelUnavailable, match="no such weights"):
                await served.control.select("b", wait=wait)
        assert served.names.default.name == "a"
        await served.control.unload("b", wait=True)
        served.world.models["b"].load_error = None
        await served.control.select("b", wait=True)
        assert served.names.default.name == "b"

    with_served(use)


def test_unloading_a_model_that_is_being_measured_takes_effect() -> None:
    """The command answers when the model is certainly not loaded, and it is not loaded afterwards."""

    async def use(served: Served) -> None:
        model = served.world.models["a"]
        model.may_measure.clear()
        await served.control.load("a", wait=False)
        status = await served.control.unload("a", wait=True)
        assert status.state == "unloaded"
        model.may_measure.set()
        await turns()
        assert (served.control.status().models[0].state, model.num_loads) == ("unloaded", 0)

    with_served(use)


def test_a_reader_that_is_too_far_behind_is_cut_off() -> None:
    """Unread events are bounded: the stream ends, and the reader starts again with a snapshot."""

    async def use(served: Served) -> None:
        async with aclosing(served.control.events()) as events:
            await anext(events)
            for _ in range(DEFAULT_CAPACITY + 50):
                served.world.bus.publish(ModelChanged("a"))
            assert len([event async for event in events]) == DEFAULT_CAPACITY

    with_served(use)


def test_event_streams_end_when_the_server_stops() -> None:
    """Watchers do not delay the stop of the server, even those that connect during it."""

    async def use(served: Served) -> None:
        async with aclosing(served.control.events()) as events:
            await anext(events)
            served.control.stop()
            assert [event async for event in events] == []
        async with aclosing(served.control.events()) as late:
            assert [event async for event in late] == []

    with_served(use)


def test_a_request_is_listed_while_it_lasts_and_can_be_cancelled() -> None:
    """Its status says what it waits for. A cancel ends it; after that, and for any unknown id, there is no request."""

    async def use(served: Served) -> None:
        served.world.models["a"].may_load.clear()
        request = served.request("r1")
        await until(lambda: served.world.pool.status("a").state == "loading")
        await turns()
        (status,) = served.control.requests()
        assert (status.id, status.model, status.status, status.position) == ("r1", "a", "loading", 1)
        served.control.cancel("r1")
        await asyncio.wait({request})
        assert request.cancelled()
        assert served.world.pool.status("a").num_waiting == 0
        for request_id in ("r1", "nobody"):
            with pytest.raises(RequestNotFound, match="/api/requests"):
                served.control.cancel(request_id)

    with_served(use)


def test_load_and_unload_with_and_without_waiting() -> None:
    """Without waiting the answer is the state right after the command; with it, the state at the end."""

    async def use(served: Served) -> None:
        model = served.world.models["eyes"]
        model.may_measure.clear()
        assert (await served.control.load("eyes", wait=False)).state == "unloaded"
        model.may_measure.set()
        assert (await served.control.load("eyes", wait=True)).state == "ready"
        async with served.world.pool.lease("eyes", FakeEngine):
            assert (await served.control.unload("eyes", wait=False)).state == "draining"
        assert (await served.control.unload("eyes", wait=True)).state == "unloaded"
        assert model.num_loads == 1

    with_served(use)


def test_a_pinned_model_is_not_unloaded() -> None:
    """The command is refused with the fix, and works once the model is unpinned."""

    async def use(served: Served) -> None:
        assert served.control.pin("a", pinned=True).is_pinned
        with pytest.raises(ModelPinned):
            await served.control.unload("a", wait=True)
        assert not served.control.pin("a", pinned=False).is_pinned
        await served.control.unload("a", wait=True)

    with_served(use)


def test_selecting_a_model_makes_it_the_default() -> None:
    """From then on `default` and no name mean the selected model; it is loaded, and first in the list."""

    async def use(served: Served) -> None:
        status = await served.control.select("b-alias", wait=True)
        assert (status.name, status.state) == ("b", "ready")
        assert served.names.resolve("").name == served.names.resolve("default").name == "b"
        assert [card.name for card in served.service.models()] == ["b", "a"]
        assert [model.name for model in served.control.status().models if model.is_default] == ["b"]

    with_served(use)


def test_selecting_a_captioner_or_unknown_name_changes_nothing() -> None:
    """Both are refused, each with the reason."""

    async def use(served: Served) -> None:
        with pytest.raises(InvalidRequest, match="captions"):
            await served.control.select("eyes", wait=True)
        with pytest.raises(ModelNotFound, match="a, b, eyes"):
            await served.control.select("ghost", wait=True)
        assert served.names.default.name == "a"

    with_served(use)
