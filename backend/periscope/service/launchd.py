"""The agent's job in launchd: seen and moved. Knows nothing of the plist's content and decides nothing."""

from __future__ import annotations

from pathlib import Path

from periscope.service.agent import BREW_LABEL, LABEL, ServiceFailed
from periscope.service.launchctl import GONE, PASSING, Answer, Code
from periscope.service.machine import Machine
from periscope.service.plist import EXIT_TIMEOUT_S
from periscope.service.printed import ABSENT, Job, read_disabled, read_job
from periscope.service.waiting import wait_until

#: A server takes up to `ExitTimeOut` to end, and launchd some seconds more to forget its job.
GONE_WITHIN_S = EXIT_TIMEOUT_S + 15.0
#: launchd was measured to refuse a label for some five seconds after it had let go of it.
BOOTSTRAP_WITHIN_S = 20.0


class Launchd:
    """Owns no state: launchd has it. Every method may block; those that wait say how long."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def job(self, label: str = LABEL) -> Job:
        """The job, in the first of the user's domains that has it; `ABSENT` where none has."""
        for domain in self._machine.domains:
            answer = self._ask("print", f"{domain}/{label}")
            if answer.status == 0:
                return read_job(answer.out, domain)
        return ABSENT

    def has_gui(self) -> bool:
        """Whether the user is logged in at the screen."""
        return self._ask("print", self._machine.gui).status == 0

    def session(self) -> str | None:
        """The session that this process is in: `Aqua` at the screen, `Background` over SSH; None if launchd is mute."""
        answer = self._ask("managername")
        return answer.out.strip() or None if answer.status == 0 else None

    def is_disabled(self) -> bool:
        """Whether launchd was told not to load the agent, for instance in Login Items."""
        answer = self._ask("print-disabled", self._machine.gui)
        return answer.status == 0 and read_disabled(answer.out, LABEL)

    def has_brew(self) -> bool:
        """Whether Homebrew's agent is there, loaded or for the next login."""
        return self._machine.paths.brew_plist.exists() or self.job(BREW_LABEL).is_loaded

    def enable(self) -> None:
        """Idempotent; without it a label that was ever disabled cannot be loaded.

        Raises:
            ServiceFailed: launchd refused.
        """
        self._do("enable", f"{self._machine.gui}/{LABEL}")

    def boot_out(self) -> None:
        """Ask launchd to end the job and forget it. It answers before it has done so: `await_gone` follows.

        Raises:
            ServiceFailed: launchd refused.
        """
        domain = self.job().domain
        if domain is not None:
            self._do("bootout", f"{domain}/{LABEL}", fine=GONE | PASSING)

    def await_gone(self) -> None:
        """Wait until launchd no longer has the job, `GONE_WITHIN_S` at most.

        Raises:
            ServiceFailed: it still has it.
        """
        if not wait_until(lambda: not self.job().is_loaded, self._machine.clock, at_most_s=GONE_WITHIN_S):
            job = self.job()
            raise ServiceFailed(
                f"launchd still has the job after {GONE_WITHIN_S:.0f} s (state {job.state.value}, pid {job.pid}). "
                "Look at `periscope service logs`, then try again."
            )

    def bootstrap(self, plist: Path) -> None:
        """Load the definition, which starts it. Tried again while launchd is still letting go of the last one.

        Raises:
            ServiceFailed: launchd refused for good.
        """
        answers: list[Answer] = []

        def is_over() -> bool:
            answers.append(self._ask("bootstrap", self._machine.gui, str(plist)))
            if answers[-1].code == Code.DISABLED:
                self.enable()
                return False
            return answers[-1].code not in PASSING

        wait_until(is_over, self._machine.clock, at_most_s=BOOTSTRAP_WITHIN_S)
        if answers[-1].status != 0:
            raise ServiceFailed(self._refusal(answers[-1], "bootstrap"))

    def kickstart(self, *, kill: bool) -> None:
        """Start the loaded job now, without regard to its throttle; with `kill` end the running process first.

        Raises:
            ServiceFailed: launchd refused.
        """
        target = f"{self.job().domain or self._machine.gui}/{LABEL}"
        self._do("kickstart", *(("-k",) if kill else ()), target, fine=frozenset({Code.ALREADY_IN_PROGRESS}))

    def _ask(self, *arguments: str) -> Answer:
        return self._machine.launchctl.run(*arguments)

    def _do(self, *arguments: str, fine: frozenset[Code] = frozenset()) -> None:
        answer = self._ask(*arguments)
        if answer.status != 0 and answer.code not in fine:
            raise ServiceFailed(self._refusal(answer, arguments[0]))

    def _refusal(self, answer: Answer, verb: str) -> str:
        told = f"`launchctl {verb}` failed: {answer.reason}."
        match answer.code:
            case Code.DOMAIN_UNSUPPORTED | Code.DOMAIN_NOT_FOUND:
                return f"{told} Nobody is logged in at this Mac's screen; log in there or by Screen Sharing."
            case Code.DISABLED:
                return f"{told} Allow Periscope under Login Items in the System Settings."
            case Code.INPUT_OUTPUT:
                return (
                    f"{told} launchd could not load {self._machine.paths.plist}: "
                    "`launchctl print-disabled` and Console (filter: launchd) say why; a new login often helps."
                )
            case _:
                return told
