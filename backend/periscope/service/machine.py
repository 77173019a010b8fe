"""The facts of the machine and the user that the service needs, as one frozen value that tests replace."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from periscope.service.agent import AgentPaths
from periscope.service.launchctl import Launchctl, SystemLaunchctl


class Clock(Protocol):
    """Time that passes; waiting is done here and nowhere else."""

    def now(self) -> float: ...
    def sleep(self, seconds: float) -> None: ...


class SystemClock:
    """The machine's own time. Owns nothing."""

    def now(self) -> float:
        """Seconds, from some beginning on."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Block for so many seconds."""
        time.sleep(seconds)


@dataclass(frozen=True, slots=True)
class Machine:
    """Where the service is installed, and for whom.

    Attributes:
        platform: `sys.platform`; launchd is on `darwin` only.
        invoked: the program that runs now, as it was called.
        interpreter: the Python that runs it.
    """

    platform: str
    uid: int
    home: Path
    env: Mapping[str, str] = field(repr=False)
    invoked: str
    interpreter: Path
    launchctl: Launchctl
    clock: Clock

    @property
    def has_launchd(self) -> bool:
        """Whether launchctl can be asked at all."""
        return self.platform == "darwin"

    @property
    def paths(self) -> AgentPaths:
        """Where the agent's files are."""
        return AgentPaths(self.home)

    @property
    def gui(self) -> str:
        """The domain of the graphical login session, in which the agent runs."""
        return f"gui/{self.uid}"

    @property
    def domains(self) -> tuple[str, str]:
        """Where a job of this user may be: the graphical session, then the user's own domain, which SSH has as well."""
        return self.gui, f"user/{self.uid}"


def this_machine() -> Machine:
    """The machine that this process runs on."""
    return Machine(
        platform=sys.platform,
        uid=os.getuid(),
        home=Path.home(),
        env=os.environ,
        invoked=sys.argv[0],
        interpreter=Path(sys.executable),
        launchctl=SystemLaunchctl(),
        clock=SystemClock(),
    )
