"""Any order of verbs and events: the service ends where launchd says it is, and says the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from periscope.service import AgentSpec, LaunchAgent, ServiceFailed, Verb, definition_of
from periscope.service.plist import Definition, read
from periscope.service.printed import JobState
from tests.service.fake_launchd import GUI, FakeClock, FakeLaunchd, mac

LABEL = "local.periscope.server"
TARGET = f"{GUI}/{LABEL}"


class Life(RuleBasedStateMachine):
    """A Mac on which people type, servers crash, sessions end and time passes.

    The model is small: what the file has to say (None: no file), and whether a job has to be loaded.
    """

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.home = Path(self._folder.name)
        self.launchd = FakeLaunchd(FakeClock())
        self.machine = mac(self.home, self.launchd)
        self.agent = LaunchAgent(self.machine, answers=lambda _: self.launchd.is_serving())
        self.file: Definition | None = None
        self.is_loaded = False

    def teardown(self) -> None:
        self._folder.cleanup()

    @property
    def has_gui(self) -> bool:
        return GUI in self.launchd.domains

    def wanted(self, version: int) -> Definition:
        program = self.home / ".local/bin/periscope"
        return definition_of(AgentSpec(program, self.machine.paths, self.home / f"models{version}.yaml"))

    def carry_out(self, verb: Verb, wanted: Definition | None = None) -> bool:
        try:
            self.agent.carry_out(verb, wanted)
        except ServiceFailed:
            return False
        assert self.agent.rehearse(verb, wanted).steps == () or verb is Verb.RESTART, "a verb is idempotent"
        return True

    @rule(version=st.integers(0, 2), drain_s=st.sampled_from([0.0, 1.0, 25.0]), settle_s=st.sampled_from([0.0, 5.0]))
    def install(self, version: int, drain_s: float, settle_s: float) -> None:
        self.launchd.drain_s, self.launchd.settle_s = drain_s, settle_s
        assert self.carry_out(Verb.INSTALL, self.wanted(version)) == self.has_gui
        if self.has_gui:
            self.file, self.is_loaded = self.wanted(version), True
            assert self.launchd.jobs[TARGET].state == "running"
            assert LABEL not in self.launchd.disabled

    @rule(version=st.integers(3, 4), status=st.sampled_from([1, 75, 0]))
    def install_what_cannot_run(self, version: int, status: int) -> None:
        """It fails, and everything is as it was, but for the process."""
        wanted = self.wanted(version)
        self.launchd.exits_by_config[wanted["ProgramArguments"][-1]] = status
        assert not self.carry_out(Verb.INSTALL, wanted)

    @rule()
    def uninstall(self) -> None:
        assert self.carry_out(Verb.UNINSTALL)
        self.file, self.is_loaded = None, False

    @rule()
    def stop(self) -> None:
        assert self.carry_out(Verb.STOP)
        self.is_loaded = False

    @rule(verb=st.sampled_from([Verb.START, Verb.RESTART]))
    def start(self, verb: Verb) -> None:
        assert self.carry_out(verb) == (self.has_gui and self.file is not None)
        if self.has_gui and self.file is not None:
            self.is_loaded = True
            assert self.launchd.jobs[TARGET].state == "running"
            assert self.launchd.is_serving()

    @precondition(lambda self: TARGET in self.launchd.jobs and self.launchd.jobs[TARGET].pid is not None)
    @rule(status=st.sampled_from([0, 1, 78]))
    def end(self, status: int) -> None:
        self.launchd.end(TARGET, status)

    @precondition(lambda self: TARGET in self.launchd.jobs)
    @rule()
    def booted_out_by_hand(self) -> None:
        """Somebody else's command, still under way when the next verb comes."""
        self.launchd.run("bootout", TARGET)
        self.is_loaded = False

    @rule()
    def disable(self) -> None:
        self.launchd.disabled.add(LABEL)

    @rule(seconds=st.sampled_from([0.5, 11.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.launchd.clock.sleep(seconds)

    @precondition(lambda self: self.has_gui)
    @rule()
    def log_out(self) -> None:
        self.launchd.log_out()
        self.is_loaded = False

    @precondition(lambda self: not self.has_gui)
    @rule()
    def log_in(self) -> None:
        self.launchd.clock.sleep(60)
        self.launchd.log_in(self.machine.paths.plist)
        self.is_loaded = self.file is not None and LABEL not in self.launchd.disabled

    @invariant()
    def the_file_is_the_last_that_worked(self) -> None:
        plist = self.machine.paths.plist
        assert (read(plist.read_bytes()) if plist.exists() else None) == self.file

    @invariant()
    def launchd_has_the_job_that_it_should(self) -> None:
        """A job on its way out may still be listed."""
        job = self.launchd.jobs.get(TARGET)
        is_staying = job is not None and job.leaves_at is None
        assert is_staying == self.is_loaded
        if job is not None and is_staying:
            assert job.definition == self.file

    @invariant()
    def status_says_what_launchd_knows(self) -> None:
        status = self.agent.status()
        job = self.launchd.jobs.get(TARGET)
        assert status.is_installed == (self.file is not None)
        assert status.job.is_loaded == (job is not None)
        assert status.job.pid == (job.pid if job else None)
        assert status.is_running == (job is not None and job.state == "running")
        assert (status.job.state is JobState.LEAVING) == (job is not None and job.leaves_at is not None)
        assert status.has_gui == self.has_gui


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
