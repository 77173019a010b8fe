"""What the server does when its machine is short of memory, hot, or back from sleep."""

from __future__ import annotations

import asyncio

from periscope.captions.cache import CaptionCache
from periscope.core import ModelState, VisionMode
from periscope.errors import ServerBusy
from periscope.host import HostReading, ThermalState
from periscope.serving.health import Notices
from periscope.serving.machine import MachineReactions
from periscope.serving.models import ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.proxy import VisionProxy
from tests.pool.fakes import FakeEngine, FakeModel, World, cancelled, held, turns, until, with_world


class Reacting:
    """Reactions over a world of models, the first of which is the default one."""

    def __init__(self, world: World) -> None:
        self.notices, self.requests = Notices(), LiveRequests(world.bus.publish)
        names = ModelNames([ServedModel(next(iter(world.models)), (), 0, None, VisionMode.DISABLED)])
        proxy = VisionProxy(CaptionCache())
        self.service = ChatService(names, world.pool, proxy, self.requests, notices=self.notices)
        self.reactions = MachineReactions(self.service, world.pool, self.requests, self.notices)


async def loaded(world: World, *names: str) -> None:
    for name in names:
        world.timers.advance(1.0)
        async with world.pool.lease(name, FakeEngine):
            pass


def test_idle_models_go_one_by_one_the_longest_idle_first() -> None:
    """Pinned and busy ones stay; they give back what they only keep for speed."""
    models = [FakeModel("busy"), FakeModel("pinned", is_pinned=True), FakeModel("old"), FakeModel("new")]

    async def use(world: World) -> None:
        reactions = Reacting(world).reactions
        await loaded(world, "pinned", "old", "new")
        running = held(world, "busy")
        await until(lambda: world.pool.status("busy").num_running == 1)
        for gone in ("old", "new"):
            reactions.relieve_memory()
            await until(lambda gone=gone: world.pool.status(gone).state == ModelState.UNLOADED)  # type: ignore[misc]
        reactions.relieve_memory()
        await turns()
        assert [world.pool.status(name).state for name in world.models] == ["ready", "ready", "unloaded", "unloaded"]
        assert [world.models[name].engines[0].num_releases for name in world.models] == [3, 3, 1, 2]
        await cancelled(running)

    with_world(models, use)


def test_loads_wait_until_the_pressure_has_passed_and_status_says_why() -> None:
    """Whoever waits too long is told the reason; what is in memory goes on being served."""

    async def use(world: World) -> None:
        reacting = Reacting(world)
        await loaded(world, "here")
        reacting.reactions.memory_is_critical(is_critical=True)
        assert "critical memory pressure" in reacting.service.health().problems[0]
        assert reacting.service.health().is_ready
        await loaded(world, "here")
        patient, impatient = asyncio.create_task(world.pool.load("away")), held(world, "away")
        await turns()
        assert world.models["away"].num_measures == 0
        world.timers.advance(31.0)
        await asyncio.wait({impatient})
        assert isinstance(impatient.exception(), ServerBusy)
        assert "short of memory" in str(impatient.exception())
        reacting.reactions.memory_is_critical(is_critical=False)
        await patient
        assert world.pool.status("away").state == ModelState.READY
        assert reacting.service.health().problems == ()

    with_world([FakeModel("here"), FakeModel("away")], use)


def test_heat_is_a_problem_only_when_it_slows_the_machine() -> None:
    """Warm is not hot."""

    async def use(world: World) -> None:
        reacting = Reacting(world)
        for thermal, problems in (("heavy", 1), ("moderate", 0), ("trapping", 1), ("nominal", 0)):
            reacting.reactions.heat_changed(HostReading(thermal=ThermalState(thermal)))
            assert len(reacting.service.health().problems) == problems

    with_world([FakeModel("m")], use)


def test_work_is_a_request_that_runs_or_waits_or_a_load() -> None:
    """And nothing else: a loaded model that nobody uses lets the machine sleep."""
    model = FakeModel("m")

    async def use(world: World) -> None:
        reacting = Reacting(world)
        assert not reacting.reactions.is_busy()
        model.may_load.clear()
        world.pool.start_load("m")
        await until(lambda: world.pool.status("m").state == ModelState.LOADING)
        assert reacting.reactions.is_busy()
        model.may_load.set()
        await until(lambda: world.pool.status("m").state == ModelState.READY)
        assert not reacting.reactions.is_busy()
        with reacting.requests.entered("r", "m"):
            assert reacting.reactions.is_busy()
        running = held(world, "m")
        await until(lambda: world.pool.status("m").num_running == 1)
        assert reacting.reactions.is_busy()
        await cancelled(running)

    with_world([model], use)


def test_after_sleep_other_servers_are_asked_anew() -> None:
    """What was reachable at home may not be in the train."""

    class Elsewhere:
        name = "far"
        num_checks = 0

        def check(self) -> None:
            self.num_checks += 1

        def status(self) -> object:
            raise AssertionError("nobody asks for it")

    async def use(world: World) -> None:
        reacting, far = Reacting(world), Elsewhere()
        reacting.service.replace_elsewhere([far])  # type: ignore[list-item]  # its status is not asked for
        reacting.reactions.woke(3600.0)
        assert far.num_checks == 1

    with_world([FakeModel("m")], use)
