"""What the service is doing, as one frozen value, and what a person should know about it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from periscope.service.agent import BREW_LABEL, LABEL
from periscope.service.printed import Job, JobState


@dataclass(frozen=True, slots=True)
class Status:
    """The service as launchd and its file show it.

    Attributes:
        is_installed: there is a plist for the next login.
        supervisor: `launchd` for our own agent, `brew` for Homebrew's.
        session: of the one who asks: `Aqua`, or `Background` over SSH; None if unknown.
        is_known: the file is as this version writes it; None where there is none, or where it is Homebrew's.
        has_program: the program that the file names is there.
        is_current: whether launchd runs what the file says.
        config: the models.yaml that the file names.
    """

    is_installed: bool
    supervisor: str
    job: Job
    plist: Path
    logs: tuple[Path, ...]
    has_gui: bool
    session: str | None
    is_disabled: bool
    is_known: bool | None
    has_program: bool
    is_current: bool
    config: Path | None

    @property
    def is_running(self) -> bool:
        """Whether there is a process."""
        return self.job.state is JobState.RUNNING

    @property
    def label(self) -> str:
        """The job that is told of."""
        return BREW_LABEL if self.supervisor == "brew" else LABEL


def notes(status: Status) -> tuple[str, ...]:
    """What is not as it should be, each with what to do, and what the sessions mean for speed."""
    told = (_trouble(status), _definition(status), _speed(status), _session(status))
    return tuple(note for note in told if note is not None)


def _trouble(status: Status) -> str | None:
    job = status.job
    if status.is_disabled:
        return "launchd has the agent disabled, so it does not start at login: `periscope service install` enables it."
    if job.state is JobState.SCHEDULED:
        ended = f"It ended with {job.ending}, and" if job.ending else "It is about to start:"
        return f"{ended} launchd starts it again in some seconds. `periscope service logs` says why."
    if job.state is JobState.STOPPED and job.ending not in (None, "exit code 0"):
        return f"It ended with {job.ending}. `periscope service logs` says why."
    if job.state is JobState.STOPPED:
        return "It ended by itself, as it was asked to: `periscope service start` starts it."
    if status.is_installed and not job.is_loaded and not status.has_gui:
        return "Nobody is logged in at this Mac's screen: the agent starts at the next login there."
    return None


def _definition(status: Status) -> str | None:
    if status.supervisor == "brew":
        return "Homebrew runs this agent: use `brew services` to start and stop it."
    if not status.is_installed:
        return None
    if not status.has_program:
        return "The program that the file names is not there any more: `periscope service install` finds the new one."
    if status.job.is_loaded and not status.is_current:
        return "launchd runs an older definition than the file's: `periscope service restart` loads the new one."
    if status.is_known is False:
        return "The file is not what this version would write: `periscope service install` renews it."
    return None


def _speed(status: Status) -> str | None:
    job = status.job
    if job.is_interactive is False:
        return (
            f"launchd runs it as {job.spawn_type}, not as interactive, which slows the GPU's work several times: "
            "`periscope service install` renews the definition."
        )
    if job.is_outside_gui:
        return (
            f"It runs in {job.domain}, outside the graphical session, where macOS may slow the GPU's work: "
            "log in at the screen and say `periscope service install`."
        )
    return None


def _session(status: Status) -> str | None:
    if status.session in (None, "Aqua") or not status.is_running:
        return None
    return (
        f"This command is in a {status.session} session (SSH), the agent in {status.job.domain}: what a server "
        "started here measures may differ from the agent's speed, in either direction."
    )
