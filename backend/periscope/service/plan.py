"""What has to be done so that launchd has the agent in the asked state. Pure: a view goes in, steps come out.

Whatever is so already needs no step, so that every verb can be said twice.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from periscope.service.plist import Definition
from periscope.service.printed import ABSENT, Job, JobState


class Verb(StrEnum):
    """What a person asks for."""

    INSTALL = "install"
    UNINSTALL = "uninstall"
    START = "start"
    STOP = "stop"
    RESTART = "restart"


class Step(StrEnum):
    """One thing to do; `LaunchAgent` carries them out in order."""

    MAKE_FOLDERS = "make folders"
    WRITE_PLIST = "write plist"
    REMOVE_PLIST = "remove plist"
    ENABLE = "enable"
    BOOT_OUT = "bootout"
    AWAIT_GONE = "await gone"
    BOOTSTRAP = "bootstrap"
    KICKSTART = "kickstart"
    KICKSTART_KILL = "kickstart -k"
    AWAIT_ANSWER = "await answer"


@dataclass(frozen=True, slots=True)
class View:
    """All that a plan depends on.

    Attributes:
        wanted: the definition that `install` would write; None for the other verbs.
        has_plist: whether there is a file, even one that is no plist.
        on_disk: what that file says; None when it is no plist.
        is_disabled: launchd refuses to load a disabled job.
        is_answered: a Periscope answers at the configured address.
    """

    job: Job = ABSENT
    wanted: Definition | None = None
    has_plist: bool = False
    on_disk: Definition | None = None
    is_disabled: bool = False
    is_answered: bool = False
    has_gui: bool = True
    has_brew: bool = False

    @property
    def is_current(self) -> bool:
        """Whether launchd runs what the file says, where it should; it keeps what it has read, and tells some of it."""
        return is_held(self.on_disk, self.job) and not self.job.is_outside_gui


def is_held(definition: Definition | None, job: Job) -> bool:
    """Whether the loaded job was made from this definition, by all that `launchctl print` tells of it."""
    if definition is None or not job.is_loaded:
        return False
    return (
        (job.arguments is None or list(job.arguments) == definition.get("ProgramArguments"))
        and job.exit_timeout_s in (None, definition.get("ExitTimeOut"))
        and (job.is_interactive is not False or definition.get("ProcessType") != "Interactive")
    )


def plan(verb: Verb, view: View) -> tuple[Step, ...]:
    """The steps, in order; none when everything is so already."""
    match verb:
        case Verb.INSTALL:
            return _install(view)
        case Verb.UNINSTALL:
            return (*_remove(view.job), *((Step.REMOVE_PLIST,) if view.has_plist else ()))
        case Verb.START:
            return () if view.job.state is JobState.RUNNING else _start(view)
        case Verb.STOP:
            return _remove(view.job)
        case Verb.RESTART:
            runs = view.job.state is JobState.RUNNING and view.is_current
            return (Step.KICKSTART_KILL, Step.AWAIT_ANSWER) if runs else _start(view)


def _install(view: View) -> tuple[Step, ...]:
    if view.on_disk == view.wanted and view.is_current:
        enabling = (Step.ENABLE,) if view.is_disabled else ()
        return (*enabling, *(() if view.job.state is JobState.RUNNING else _start(view)))
    writing = () if view.on_disk == view.wanted else (Step.WRITE_PLIST,)
    return (Step.MAKE_FOLDERS, *writing, *_reload(view.job))


def _start(view: View) -> tuple[Step, ...]:
    """A job that does not run, or that runs what the file no longer says."""
    if view.is_current and view.job.state in (JobState.STOPPED, JobState.SCHEDULED):
        return Step.KICKSTART, Step.AWAIT_ANSWER
    return (Step.MAKE_FOLDERS, *_reload(view.job))


def _reload(job: Job) -> tuple[Step, ...]:
    """The file is read at a bootstrap only, and a bootstrap is taken only when launchd has forgotten the job."""
    return (Step.ENABLE, *_remove(job), Step.BOOTSTRAP, Step.AWAIT_ANSWER)


def _remove(job: Job) -> tuple[Step, ...]:
    match job.state:
        case JobState.ABSENT:
            return ()
        case JobState.LEAVING:
            return (Step.AWAIT_GONE,)
        case _:
            return Step.BOOT_OUT, Step.AWAIT_GONE
