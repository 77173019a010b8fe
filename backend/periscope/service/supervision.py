"""The service: looks, plans, carries out, and puts back what was there when an installation fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from periscope.service.agent import BREW_LABEL, ServiceFailed
from periscope.service.launchd import Launchd
from periscope.service.logs import last_lines
from periscope.service.machine import Machine
from periscope.service.plan import Step, Verb, View, is_held, plan
from periscope.service.plist import Definition, config_of, definition_of, read, render, spec_of
from periscope.service.printed import ABSENT, Job, JobState
from periscope.service.refusal import refusal
from periscope.service.status import Status
from periscope.service.waiting import wait_until

#: Python and HTTP are up within a second or two; models are loaded after that and are not waited for.
ANSWER_WITHIN_S = 30.0
_PLIST_MODE = 0o644
_LOGS_MODE = 0o700
_NUM_LINES = 5


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb did.

    Attributes:
        steps: what was done, or would be; empty when everything was so already.
        job: as it is now; as it was before in a dry run.
        is_answered: the server answers over HTTP.
    """

    verb: Verb
    steps: tuple[Step, ...]
    job: Job
    is_answered: bool


class LaunchAgent:
    """Owns the plist file. The job is launchd's, and is looked at again before every decision.

    Args:
        answers: whether a Periscope answers where this models.yaml (None: the usual one) has it listen.
    """

    def __init__(self, machine: Machine, *, answers: Callable[[Path | None], bool]) -> None:
        self._machine = machine
        self._answers = answers
        self._launchd = Launchd(machine)
        self._plist = machine.paths.plist

    def status(self) -> Status:
        """How things stand, by the file and by launchd."""
        has_brew = self._launchd.has_brew() and not self._plist.exists()
        job = self._launchd.job(BREW_LABEL) if has_brew else self._launchd.job()
        plist = self._machine.paths.brew_plist if has_brew else self._plist
        on_disk = read(_bytes_of(plist))
        return Status(
            is_installed=plist.exists(),
            supervisor="brew" if has_brew else "launchd",
            job=job,
            plist=plist,
            logs=self._logs_of(on_disk),
            has_gui=self._launchd.has_gui(),
            session=self._launchd.session(),
            is_disabled=self._launchd.is_disabled(),
            is_known=None if has_brew or not plist.exists() else self._is_known(on_disk),
            has_program=on_disk is not None and os.access(_program_of(on_disk), os.X_OK),
            is_current=is_held(on_disk, job),
            config=config_of(on_disk),
        )

    def rehearse(self, verb: Verb, wanted: Definition | None = None) -> Outcome:
        """What `carry_out` would do now. Without launchd no job is taken to be loaded.

        Raises:
            ServiceFailed: it would do nothing, for this reason.
        """
        view = self._view(verb, wanted)
        return Outcome(verb, self._planned(verb, view), view.job, view.is_answered)

    def carry_out(
        self, verb: Verb, wanted: Definition | None = None, *, on_step: Callable[[Step], None] = lambda _: None
    ) -> Outcome:
        """Bring the service to the state that the verb names; idempotent. May block for a minute.

        Args:
            on_step: told of each step before it is done.

        Raises:
            ServiceFailed: it was refused, or failed. After a failed `install` the last definition is back, and loaded
                if it was.
        """
        view = self._view(verb, wanted)
        steps = self._planned(verb, view)
        saved = _bytes_of(self._plist)
        begun: list[Step] = []
        is_answered = view.is_answered
        try:
            for step in steps:
                on_step(step)
                begun.append(step)
                if step is Step.AWAIT_ANSWER:
                    before = ABSENT if Step.BOOTSTRAP in begun else view.job
                    is_answered = self._await_answer(config_of(view.wanted or view.on_disk), before)
                else:
                    self._perform(step, view)
        except ServiceFailed as error:
            if Step.WRITE_PLIST in begun:
                raise ServiceFailed(f"{error.message}\n{self._put_back(saved, view.job)}") from None
            raise
        return Outcome(verb, steps, self._launchd.job(), is_answered)

    def _logs_of(self, on_disk: Definition | None) -> tuple[Path, ...]:
        """The server's own, then what launchd collects: where the definition has it, else where ours would have it."""
        named = [(on_disk or {}).get(key) for key in ("StandardOutPath", "StandardErrorPath")]
        paths = self._machine.paths
        collected = [Path(str(each)) for each in named if each] or [paths.out_log, paths.err_log]
        return tuple(dict.fromkeys([paths.server_log, *collected]))  # Homebrew's has one for both streams

    def _is_known(self, on_disk: Definition | None) -> bool:
        spec = None if on_disk is None else spec_of(on_disk, self._machine.paths)
        try:
            return spec is not None and definition_of(spec) == on_disk
        except ServiceFailed:
            return False

    def _view(self, verb: Verb, wanted: Definition | None) -> View:
        content = _bytes_of(self._plist)
        on_disk = read(content)
        base = View(wanted=wanted, has_plist=content is not None, on_disk=on_disk)
        if not self._machine.has_launchd:
            return base
        is_starting = verb not in (Verb.STOP, Verb.UNINSTALL)
        return View(
            wanted=wanted,
            has_plist=base.has_plist,
            on_disk=on_disk,
            job=self._launchd.job(),
            is_disabled=self._launchd.is_disabled(),
            is_answered=is_starting and self._answers(config_of(wanted or on_disk)),
            has_gui=self._launchd.has_gui(),
            has_brew=self._launchd.has_brew(),
        )

    def _planned(self, verb: Verb, view: View) -> tuple[Step, ...]:
        if (reason := refusal(verb, view, self._machine)) is not None:
            raise ServiceFailed(reason)
        return plan(verb, view)

    def _perform(self, step: Step, view: View) -> None:
        match step:
            case Step.MAKE_FOLDERS:
                self._make_folders()
            case Step.WRITE_PLIST:
                self._write(render(view.wanted or {}))
            case Step.REMOVE_PLIST:
                self._remove()
            case _:
                self._ask_launchd(step)

    def _ask_launchd(self, step: Step) -> None:
        match step:
            case Step.ENABLE:
                self._launchd.enable()
            case Step.BOOT_OUT:
                self._launchd.boot_out()
            case Step.AWAIT_GONE:
                self._launchd.await_gone()
            case Step.BOOTSTRAP:
                self._launchd.bootstrap(self._plist)
            case _:
                self._launchd.kickstart(kill=step is Step.KICKSTART_KILL)

    def _await_answer(self, config: Path | None, before: Job) -> bool:
        """False when its process runs but is not heard in time, which is no failure: it may be a slow disk.

        Args:
            before: the job before it was started, whose process may still answer for a moment.
        """
        seen: list[Job] = []

        def is_over() -> bool:
            seen.append(self._launchd.job())
            return _has_ended(seen[-1], before) or (_is_new(seen[-1], before) and self._answers(config))

        is_answered = wait_until(is_over, self._machine.clock, at_most_s=ANSWER_WITHIN_S)
        job = seen[-1]
        if _has_ended(job, before) or not job.is_loaded:
            raise ServiceFailed(f"The server ended at once, with {job.ending or 'no reason given'}.{self._log_tail()}")
        return is_answered

    def _make_folders(self) -> None:
        try:
            self._machine.paths.logs.mkdir(mode=_LOGS_MODE, parents=True, exist_ok=True)
            self._plist.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ServiceFailed(f"{error.filename} cannot be made: {error.strerror}.") from None

    def _write(self, content: bytes) -> None:
        """Atomic: launchd never reads half a file."""
        draft = self._plist.with_suffix(".new")
        try:
            draft.write_bytes(content)
            draft.chmod(_PLIST_MODE)
            os.replace(draft, self._plist)  # noqa: PTH105 - the atomic one
        except OSError as error:
            raise ServiceFailed(
                f"{self._plist} cannot be written: {error.strerror}. Check who owns {self._plist.parent}."
            ) from None

    def _remove(self) -> None:
        try:
            self._plist.unlink(missing_ok=True)
        except OSError as error:
            raise ServiceFailed(
                f"{self._plist} cannot be removed: {error.strerror}. Check who owns {self._plist.parent}."
            ) from None

    def _put_back(self, saved: bytes | None, job: Job) -> str:
        """After a failed installation; returns what was done. What fails now is told, too, and hides nothing."""
        try:
            self._launchd.boot_out()
            self._launchd.await_gone()
            if saved is None:
                self._remove()
                return "Nothing is installed; mend the cause and try again."
            self._write(saved)
            if job.state in (JobState.ABSENT, JobState.LEAVING):
                return "The definition that was there before is back."
            self._launchd.bootstrap(self._plist)
        except ServiceFailed as error:
            return f"What was there before could not be put back: {error.message}"
        return "The definition that was there before is back and loaded."

    def _log_tail(self) -> str:
        lines = last_lines(self._machine.paths.err_log, _NUM_LINES)
        return "".join(f"\n  {line}" for line in lines)


def _program_of(definition: Definition) -> str:
    arguments = definition.get("ProgramArguments")
    return str(arguments[0]) if isinstance(arguments, list) and arguments else ""


def _has_ended(job: Job, before: Job) -> bool:
    """Whether a process that was started since has ended already; launchd may be about to start the next."""
    return job.state in (JobState.SCHEDULED, JobState.STOPPED) and (job.runs or 0) > (before.runs or 0)


def _is_new(job: Job, before: Job) -> bool:
    return job.state is JobState.RUNNING and (job.pid is None or job.pid != before.pid)


def _bytes_of(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ServiceFailed(f"{file} cannot be read: {error.strerror}.") from None
