"""A home, a launchd, and the agent between them."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.service import AgentPaths, AgentSpec, LaunchAgent, Machine
from periscope.service.plist import Definition, definition_of
from tests.service.fake_launchd import FakeClock, FakeLaunchd, mac


@pytest.fixture
def launchd() -> FakeLaunchd:
    return FakeLaunchd(FakeClock())


@pytest.fixture
def machine(tmp_path: Path, launchd: FakeLaunchd) -> Machine:
    return mac(tmp_path, launchd)


@pytest.fixture
def agent(machine: Machine, launchd: FakeLaunchd) -> LaunchAgent:
    return LaunchAgent(machine, answers=lambda _: launchd.is_serving())


@pytest.fixture
def wanted(machine: Machine) -> Definition:
    """What an installation writes."""
    return definition_of(AgentSpec(machine.home / ".local/bin/periscope", AgentPaths(machine.home)))


@pytest.fixture
def other(machine: Machine) -> Definition:
    """The same with another models.yaml."""
    program = machine.home / ".local/bin/periscope"
    return definition_of(AgentSpec(program, AgentPaths(machine.home), config=machine.home / "other.yaml"))
