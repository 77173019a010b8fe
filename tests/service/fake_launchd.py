"""launchd as far as one agent meets it: asynchronous, with its real error numbers and its way of printing jobs.

What it does was taken from reports of real machines: a job that is booted out is still listed, as `SIGTERMed`, until
its process has ended; after that its label is refused for some seconds with a bare 5; a crashed job waits for its
throttle as `spawn scheduled`; a bootout that is asked for twice is 36; a definition is read at bootstrap and kept.
"""

from __future__ import annotations

import plistlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from periscope.service.launchctl import Answer
from periscope.service.machine import Machine

UID = 501
GUI, USER = f"gui/{UID}", f"user/{UID}"
_SPAWN_TYPES = {"Interactive": "interactive (4)", "Background": "background (5)", "Standard": "daemon (3)"}

#: One job as macOS prints it, with the nested blocks whose lines must not be taken for the job's own.
_PRINTED = """\
{target} = {{
	active count = {active}
	path = {path}
	type = LaunchAgent
	state = {state}

	program = {program}
	arguments = {{
{arguments}
	}}

	working directory = /Users/sample

	stdout path = /Users/sample/Library/Logs/periscope/launchd.out.log
	inherited environment = {{
		SSH_AUTH_SOCK => /private/tmp/com.apple.launchd.Qz81/Listeners
	}}

	environment = {{
		pid = 1
		XPC_SERVICE_NAME => {label}
	}}

	domain = {domain} [100004]
	asid = 100004
	minimum runtime = 10
	exit timeout = {exit_timeout}
	runs = {runs}
{ending}
	resource coalition = {{
		ID = 1481
		type = resource
		state = active
		active count = 1
		name = {label}
	}}

	spawn type = {spawn_type}
	jetsam priority = 40
	submitted job. ignore execute allowed
	job state = {job_state}

	properties = keepalive | runatload | inferred program
}}
"""


class FakeClock:
    """Owns the time. Whoever sleeps moves it, and launchd's deferred work is done on the way."""

    def __init__(self) -> None:
        self.at = 1000.0
        self.on_tick: list[Callable[[], None]] = []

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds
        for tick in self.on_tick:
            tick()


@dataclass
class Loaded:
    definition: dict[str, Any]
    path: str
    state: str = "not running"
    pid: int | None = None
    runs: int = 0
    last_exit: str | None = None
    last_reason: str | None = None
    respawns_at: float | None = None
    leaves_at: float | None = None


@dataclass
class FakeLaunchd:
    """Owns the jobs. A `Launchctl` for the service, and levers for the test.

    Attributes:
        exits_with: what the server does when it is started: None = it stays; a number = it ends at once with it.
        exits_by_config: the same for a server whose definition ends with this models.yaml.
        drain_s: how long the server takes to end after SIGTERM.
        settle_s: how long launchd refuses a label that it has let go of.
        refuses: verb -> the answer that launchd gives instead of doing anything.
    """

    clock: FakeClock
    jobs: dict[str, Loaded] = field(default_factory=dict)
    domains: set[str] = field(default_factory=lambda: {GUI, USER})
    disabled: set[str] = field(default_factory=set)
    settles_at: dict[str, float] = field(default_factory=dict)
    refuses: dict[str, Answer] = field(default_factory=dict)
    calls: list[tuple[str, ...]] = field(default_factory=list)
    manager: str = "Aqua"
    exits_with: int | None = None
    exits_by_config: dict[str, int] = field(default_factory=dict)
    is_deaf: bool = False
    drain_s: float = 1.0
    settle_s: float = 3.0
    last_pid: int = 700

    def __post_init__(self) -> None:
        self.clock.on_tick.append(self.tick)

    def run(self, *arguments: str) -> Answer:
        self.calls.append(arguments)
        self.tick()
        verb, rest = arguments[0], list(arguments[1:])
        if verb in self.refuses:
            return self.refuses[verb]
        return getattr(self, "_" + verb.replace("-", "_"))(*rest)  # type: ignore[no-any-return]

    def changes(self) -> list[str]:
        """The verbs that change something, in the order of the calls."""
        return [call[0] for call in self.calls if call[0] not in ("print", "print-disabled", "managername")]

    def tick(self) -> None:
        for target, job in list(self.jobs.items()):
            if job.leaves_at is not None and self.clock.at >= job.leaves_at:
                del self.jobs[target]
                self.settles_at[target] = self.clock.at + self.settle_s
            elif job.respawns_at is not None and self.clock.at >= job.respawns_at:
                self._spawn(job)

    def end(self, target: str, status: int | None = None, reason: str | None = None) -> None:
        """The process ends by itself, or is killed for a reason; KeepAlive decides whether it comes back."""
        job = self.jobs[target]
        if job.leaves_at is not None:
            job.pid, job.leaves_at = None, self.clock.at
            return
        job.pid, job.last_exit, job.last_reason = None, None if status is None else str(status), reason
        job.last_exit = "78: EX_CONFIG" if status == 78 else job.last_exit
        keep_alive = job.definition.get("KeepAlive")
        if status != 0 and keep_alive in (True, {"SuccessfulExit": False}):
            job.state, job.respawns_at = "spawn scheduled", self.clock.at + job.definition.get("ThrottleInterval", 10)
        else:
            job.state, job.respawns_at = "not running", None

    def is_serving(self) -> bool:
        """Whether one of the jobs has a server that hears."""
        return not self.is_deaf and any(job.pid is not None and job.leaves_at is None for job in self.jobs.values())

    def log_in(self, plist: Path) -> None:
        """A new graphical session: launchd loads what lies in LaunchAgents."""
        self.domains.add(GUI)
        if plist.exists():
            self._bootstrap(GUI, str(plist))

    def log_out(self) -> None:
        self.domains.discard(GUI)
        self.jobs = {target: job for target, job in self.jobs.items() if not target.startswith(GUI)}

    def _spawn(self, job: Loaded) -> None:
        self.last_pid += 1
        job.pid, job.runs, job.respawns_at, job.state = self.last_pid, job.runs + 1, None, "running"
        status = self.exits_by_config.get(job.definition["ProgramArguments"][-1], self.exits_with)
        if status is not None:
            target = next(target for target, each in self.jobs.items() if each is job)
            self.end(target, status)

    def _managername(self) -> Answer:
        return Answer(0, f"{self.manager}\n")

    def _print(self, target: str) -> Answer:
        if target.count("/") == 1:
            known = target in self.domains
            return Answer(0, f"{target} = {{\n}}\n") if known else Answer(112, err=f"Could not find domain {target}\n")
        domain, label = target.rsplit("/", 1)
        job = self.jobs.get(target)
        if job is None:
            return Answer(113, err=f'Bad request.\nCould not find service "{label}" in domain for user gui: {UID}\n')
        return Answer(0, printed(job, domain, label))

    def _print_disabled(self, _domain: str) -> Answer:
        lines = "".join(f'\t\t"{label}" => disabled\n' for label in sorted(self.disabled))
        return Answer(0, f'\n\tdisabled services = {{\n\t\t"com.other" => enabled\n{lines}\t}}\n')

    def _enable(self, target: str) -> Answer:
        self.disabled.discard(target.rsplit("/", 1)[1])
        return Answer(0)

    def _bootstrap(self, domain: str, path: str) -> Answer:
        definition = plistlib.loads(Path(path).read_bytes())
        label = definition["Label"]
        target = f"{domain}/{label}"
        if domain not in self.domains:
            return Answer(5, err="Bootstrap failed: 125: Domain does not support specified action\n")
        if label in self.disabled:
            return Answer(119, err="Bootstrap failed: 119: Service is disabled\n")
        if target in self.jobs or self.clock.at < self.settles_at.get(target, 0):
            return Answer(
                5,
                err="Bootstrap failed: 5: Input/output error\nTry re-running the command as root for richer errors.\n",
            )
        self.jobs[target] = Loaded(definition, path)
        self._spawn(self.jobs[target])
        return Answer(0)

    def _bootout(self, target: str) -> Answer:
        job = self.jobs.get(target)
        if job is None:
            return Answer(3, err="Boot-out failed: 3: No such process\n")
        if job.leaves_at is not None:
            return Answer(36, err="Boot-out failed: 36: Operation now in progress\n")
        drain_s = self.drain_s if job.pid is not None else 0.1
        job.state, job.respawns_at, job.leaves_at = "SIGTERMed", None, self.clock.at + drain_s
        return Answer(0)

    def _kickstart(self, *arguments: str) -> Answer:
        target = arguments[-1]
        job = self.jobs.get(target)
        if job is None:
            return Answer(113, err=f'Could not find service "{target}" in domain for user gui: {UID}\n')
        if job.pid is not None and "-k" not in arguments:
            return Answer(37, err="Could not kickstart service: 37: Operation already in progress\n")
        self._spawn(job)
        return Answer(0)


def printed(job: Loaded, domain: str, label: str) -> str:
    """One job as `launchctl print` shows it."""
    ending = f"\tlast exit code = {job.last_exit or '(never exited)'}"
    if job.last_reason is not None:
        ending = f"\tlast exit reason = {job.last_reason}"
    if job.pid is not None:
        ending = f"\tpid = {job.pid}\n\timmediate reason = speculative\n{ending}"
    arguments = job.definition["ProgramArguments"]
    return _PRINTED.format(
        target=f"{domain}/{label}",
        label=label,
        domain=domain,
        path=job.path,
        state=job.state,
        program=arguments[0],
        arguments="\n".join(f"\t\t{each}" for each in arguments),
        exit_timeout=job.definition.get("ExitTimeOut", 5),
        active=int(job.pid is not None),
        runs=job.runs,
        ending=ending,
        spawn_type=_SPAWN_TYPES[job.definition.get("ProcessType", "Standard")],
        job_state="running" if job.pid is not None else "exited",
    )


def mac(home: Path, launchd: FakeLaunchd, *, program: Path | None = None, **changes: Any) -> Machine:
    """A Mac with this launchd, and Periscope's program as `uv tool install` leaves it."""
    program = program or install_program(home)
    machine = Machine(
        platform="darwin",
        uid=UID,
        home=home,
        env={"PATH": "/usr/bin:/bin"},
        invoked=str(program),
        interpreter=Path(sys.executable),
        launchctl=launchd,
        clock=launchd.clock,
    )
    return replace(machine, **changes)


def install_program(home: Path) -> Path:
    """A link in ~/.local/bin to a program in an environment of its own; returns the link."""
    program = home / ".local/share/uv/tools/mlx-periscope/bin/periscope"
    link = home / ".local/bin/periscope"
    if not link.is_symlink():
        program.parent.mkdir(parents=True)
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        link.parent.mkdir(parents=True)
        link.symlink_to(program)
    return link
