"""What `launchctl print` says of one job, read. Pure.

The output is made for people and is no interface: what is not understood is None, never a guess. Only lines with
exactly one tab belong to the job itself; blocks below it (coalitions, endpoints) have `state` and `pid` of their own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

_LINE = re.compile(r"^\t([^\t=][^=]*?) = (.*)$")
_NUMBER = re.compile(r"^\d+")


class JobState(StrEnum):
    """A job as launchd shows it; `DESIGN.md` has the transitions."""

    ABSENT = "absent"
    RUNNING = "running"
    SCHEDULED = "scheduled"
    STOPPED = "stopped"
    LEAVING = "leaving"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Job:
    """One job in one domain. What launchd did not say is None.

    Attributes:
        domain: `gui/501` or `user/501`; None for an absent job.
        last_exit: as printed, for instance `78: EX_CONFIG`; None if it has never exited.
        arguments: of the definition that launchd holds, which may be older than the file.
    """

    state: JobState
    domain: str | None = None
    pid: int | None = None
    runs: int | None = None
    last_exit: str | None = None
    last_signal: str | None = None
    last_exit_reason: str | None = None
    exit_timeout_s: int | None = None
    spawn_type: str | None = None
    arguments: tuple[str, ...] | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether launchd knows the job, running or not."""
        return self.state is not JobState.ABSENT

    @property
    def is_interactive(self) -> bool | None:
        """Whether it runs at full speed; None where launchd did not say."""
        return None if self.spawn_type is None else self.spawn_type.startswith("interactive")

    @property
    def is_outside_gui(self) -> bool:
        """Whether it is loaded, but not in the graphical session."""
        return self.domain is not None and not self.domain.startswith("gui/")

    @property
    def ending(self) -> str | None:
        """How its last process ended, in launchd's words."""
        said = self.last_exit_reason or self.last_signal
        if said is not None:
            return said
        return None if self.last_exit is None else f"exit code {self.last_exit}"


ABSENT = Job(JobState.ABSENT)


def read_job(text: str, domain: str) -> Job:
    """The job that `launchctl print DOMAIN/LABEL` shows."""
    values, arguments = _fields(text)
    state = values.get("state")
    never = values.get("last exit code") == "(never exited)"
    return Job(
        state=_state_of(state),
        domain=domain,
        pid=_number(values.get("pid")),
        runs=_number(values.get("runs")),
        last_exit=None if never else values.get("last exit code"),
        last_signal=values.get("last terminating signal"),
        last_exit_reason=values.get("last exit reason"),
        exit_timeout_s=_number(values.get("exit timeout")),
        spawn_type=values.get("spawn type"),
        arguments=arguments,
    )


def read_disabled(text: str, label: str) -> bool:
    """Whether `launchctl print-disabled DOMAIN` has the label as disabled; older systems print `true` for it."""
    return re.search(rf'^\s*"{re.escape(label)}" => (disabled|true)$', text, re.MULTILINE) is not None


def _fields(text: str) -> tuple[dict[str, str], tuple[str, ...] | None]:
    values: dict[str, str] = {}
    arguments: list[str] | None = None
    in_arguments = False
    for line in text.splitlines():
        if in_arguments and line.startswith("\t\t") and arguments is not None:
            arguments.append(line[2:])
            continue
        in_arguments = False
        if (found := _LINE.match(line)) is None:
            continue
        if found[2] != "{":
            values.setdefault(found[1], found[2])
        elif found[1] == "arguments":
            in_arguments, arguments = True, []
    return values, None if arguments is None else tuple(arguments)


def _state_of(text: str | None) -> JobState:
    match text:
        case "running":
            return JobState.RUNNING
        case "not running" | "exited":
            return JobState.STOPPED
        case "spawn scheduled" | "spawn in progress" | "spawning" | "xpcproxy" | "waiting":
            return JobState.SCHEDULED
        case str() if text.startswith("SIG"):
            return JobState.LEAVING
        case _:
            return JobState.UNKNOWN


def _number(text: str | None) -> int | None:
    found = _NUMBER.match(text or "")
    return int(found[0]) if found else None
