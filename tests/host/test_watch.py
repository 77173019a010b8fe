"""Looks at a machine that sleeps, is short of memory, gets hot and has work to do, as a test says."""

from __future__ import annotations

import asyncio
import logging

import pytest

from periscope.host import HostReading, HostWatch, KeepAwake, MemoryPressure, ThermalState
from periscope.host.watch import Clocks


class FakeMachine:
    """Sensors, clocks and listener in one; remembers what the listener was told."""

    def __init__(self) -> None:
        self.reading = HostReading(MemoryPressure.NORMAL, ThermalState.NOMINAL)
        self.wall = 1_000_000.0
        self.monotonic = 50.0
        self.has_work = False
        self.told: list[object] = []

    def read(self) -> HostReading:
        return self.reading

    def passes(self, seconds: float, *, asleep_s: float = 0.0) -> None:
        self.monotonic += seconds
        self.wall += seconds + asleep_s

    def is_busy(self) -> bool:
        return self.has_work

    def relieve_memory(self) -> None:
        self.told.append("relieve")

    def memory_is_critical(self, *, is_critical: bool) -> None:
        self.told.append(("critical", is_critical))

    def heat_changed(self, reading: HostReading) -> None:
        self.told.append(reading.thermal)

    def woke(self, slept_s: float) -> None:
        self.told.append(("woke", round(slept_s)))


class FakeCaffeinate:
    """Runs until it is terminated, or ends by itself."""

    def __init__(self) -> None:
        self.status: int | None = None

    def poll(self) -> int | None:
        return self.status

    def terminate(self) -> None:
        self.status = -15

    def wait(self) -> int:
        assert self.status is not None
        return self.status


class Awake(KeepAwake):
    """With fakes for programs."""

    def __init__(self) -> None:
        self.started: list[FakeCaffeinate] = []
        super().__init__(self._begun)

    def _begun(self) -> FakeCaffeinate:
        self.started.append(FakeCaffeinate())
        return self.started[-1]


@pytest.fixture
def machine() -> FakeMachine:
    return FakeMachine()


@pytest.fixture
def awake() -> Awake:
    return Awake()


@pytest.fixture
def watch(machine: FakeMachine, awake: Awake) -> HostWatch:
    return HostWatch(machine, awake, machine, clocks=Clocks(lambda: machine.wall, lambda: machine.monotonic))


def test_sleep_is_seen_by_the_clocks(watch: HostWatch, machine: FakeMachine) -> None:
    """Once for each sleep; a busy loop and a clock that is set by seconds are none, nor is one that is set back."""
    for seconds, asleep_s in ((5.0, 0.0), (300.0, 0.0), (5.0, 3.0), (5.0, -7200.0), (1.0, 3600.0), (5.0, 0.0)):
        machine.passes(seconds, asleep_s=asleep_s)
        watch.look()
    assert [told for told in machine.told if told is not ThermalState.NOMINAL] == [("woke", 3600)]


def test_critical_pressure_is_told_once_and_relieved_at_each_look(watch: HostWatch, machine: FakeMachine) -> None:
    """A warning is not critical."""
    for pressure in ("warning", "critical", "critical", "warning", "normal"):
        machine.reading = HostReading(MemoryPressure(pressure))
        watch.look()
    assert machine.told == [("critical", True), "relieve", "relieve", ("critical", False)]


def test_heat_is_told_when_it_changes(watch: HostWatch, machine: FakeMachine) -> None:
    """Also back to normal."""
    for thermal in ("nominal", "heavy", "heavy", "nominal"):
        machine.reading = HostReading(thermal=ThermalState(thermal))
        watch.look()
    assert machine.told == ["nominal", "heavy", "nominal"]


def test_the_machine_is_kept_awake_while_there_is_work_and_only_then(
    watch: HostWatch, machine: FakeMachine, awake: Awake
) -> None:
    """One program at a time; one that somebody killed is started again."""
    watch.look()
    assert (awake.started, watch.is_kept_awake) == ([], False)
    machine.has_work = True
    watch.look()
    watch.look()
    assert (len(awake.started), watch.is_kept_awake) == (1, True)
    awake.started[0].status = 1
    assert not watch.is_kept_awake
    watch.look()
    assert (len(awake.started), watch.is_kept_awake) == (2, True)
    machine.has_work = False
    watch.look()
    assert (awake.started[1].status, watch.is_kept_awake) == (-15, False)


def test_at_the_end_it_may_sleep(watch: HostWatch, machine: FakeMachine, awake: Awake) -> None:
    """A server that stops in the middle of its work leaves no program behind."""
    machine.has_work = True

    async def run() -> None:
        running = asyncio.create_task(watch.run())
        while not awake.started:
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.wait({running})

    asyncio.run(run())
    assert awake.started[0].status == -15


def test_a_machine_that_cannot_be_kept_awake_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """The work goes on."""

    def missing() -> FakeCaffeinate:
        raise FileNotFoundError(2, "No such file", "caffeinate")

    keep = KeepAwake(missing)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            keep.update(is_busy=True)
    assert (keep.is_active, len(caplog.records)) == (False, 1)
    never = KeepAwake(None)
    never.update(is_busy=True)
    assert not never.is_active
