"""Apple's `launchctl` as a collaborator: what is asked of it, and what its answers mean."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

_PROGRAM = "/bin/launchctl"
#: launchctl itself answers at once, except that a bootout may wait for the job to end.
_TIMEOUT_S = 60.0
_TIMED_OUT = 124
_TOLD_CODE = re.compile(r"failed: (\d+):")


class Code(IntEnum):
    """The errors of launchctl that need something done about them."""

    NO_SUCH_PROCESS = 3
    INPUT_OUTPUT = 5
    IN_PROGRESS = 36
    ALREADY_IN_PROGRESS = 37
    DOMAIN_NOT_FOUND = 112
    SERVICE_NOT_FOUND = 113
    DISABLED = 119
    DOMAIN_UNSUPPORTED = 125


#: The job is not loaded.
GONE = frozenset({Code.NO_SUCH_PROCESS, Code.SERVICE_NOT_FOUND})
#: launchd is not done with what was asked of it before, or (5) has the job already.
PASSING = frozenset({Code.INPUT_OUTPUT, Code.IN_PROGRESS, Code.ALREADY_IN_PROGRESS})


@dataclass(frozen=True, slots=True)
class Answer:
    """What one call of launchctl gave."""

    status: int
    out: str = ""
    err: str = ""

    @property
    def code(self) -> int:
        """0, or the number of the error. Some versions exit with 5 and name the real number in their sentence."""
        found = _TOLD_CODE.search(self.err)
        return int(found[1]) if found and self.status else self.status

    @property
    def reason(self) -> str:
        """What launchctl said, on one line."""
        said = [line.strip() for line in (self.err or self.out).splitlines() if line.strip()]
        return said[0] if said else f"launchctl ended with {self.status}"


class Launchctl(Protocol):
    """Runs `launchctl` with these arguments and waits for its end; never raises for what launchctl answers."""

    def run(self, *arguments: str) -> Answer: ...


class SystemLaunchctl:
    """The Mac's own launchctl. Owns nothing."""

    def run(self, *arguments: str) -> Answer:
        """May block for as long as launchctl does."""
        try:
            ended = subprocess.run(  # noqa: S603 - a fixed program, and arguments that are not read by a shell
                [_PROGRAM, *arguments],
                capture_output=True,
                text=True,
                timeout=_TIMEOUT_S,
                check=False,
                errors="replace",
            )
        except FileNotFoundError:
            return Answer(127, err=f"there is no {_PROGRAM}")
        except subprocess.TimeoutExpired:
            return Answer(_TIMED_OUT, err=f"launchctl {arguments[0]} did not answer within {_TIMEOUT_S:.0f} s")
        return Answer(ended.returncode, ended.stdout, ended.stderr)
