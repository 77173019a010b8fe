"""The agent from its installation to its end, over a launchd that does what real ones do."""

from __future__ import annotations

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.service import AgentSpec, LaunchAgent, Machine, ServiceFailed, Step, Verb, definition_of, notes, render
from periscope.service.launchctl import Answer
from periscope.service.plist import Definition, read
from periscope.service.printed import JobState
from tests.service.fake_launchd import GUI, USER, FakeLaunchd, Loaded

TARGET = f"{GUI}/local.periscope.server"
BREW = f"{GUI}/homebrew.mxcl.periscope"


def on_disk(machine: Machine) -> Definition | None:
    file = machine.paths.plist
    return read(file.read_bytes()) if file.exists() else None


def test_an_installed_agent_runs_and_answers(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """The file is there for the next login, the process now; the logs' folder is the user's alone."""
    outcome = agent.carry_out(Verb.INSTALL, wanted)
    assert (outcome.job.state, outcome.is_answered) == (JobState.RUNNING, True)
    assert on_disk(machine) == wanted == launchd.jobs[TARGET].definition
    assert stat.S_IMODE(machine.paths.plist.stat().st_mode) == 0o644
    assert stat.S_IMODE(machine.paths.logs.stat().st_mode) == 0o700
    assert launchd.changes() == ["enable", "bootstrap"]
    assert [file.name for file in machine.paths.plist.parent.iterdir()] == [machine.paths.plist.name]


def test_a_second_installation_changes_nothing(agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition) -> None:
    """No stream is cut off because somebody said `install` twice."""
    agent.carry_out(Verb.INSTALL, wanted)
    pid, changes = launchd.jobs[TARGET].pid, launchd.changes()
    assert agent.carry_out(Verb.INSTALL, wanted).steps == ()
    assert (launchd.jobs[TARGET].pid, launchd.changes()) == (pid, changes)


def test_an_upgrade_with_another_path_is_loaded(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, other: Definition
) -> None:
    """The job is taken out, waited for until launchd has let go, and comes back as the file has it."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.drain_s, launchd.settle_s = 12.0, 5.0
    before = launchd.clock.now()
    outcome = agent.carry_out(Verb.INSTALL, other)
    assert outcome.job.state is JobState.RUNNING
    assert on_disk(machine) == other == launchd.jobs[TARGET].definition
    assert launchd.clock.now() - before >= 17.0
    assert launchd.changes()[2:5] == ["enable", "bootout", "bootstrap"]


def test_a_job_that_never_leaves_is_told(agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition) -> None:
    """Waiting ends, with the state and the process that is left."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.drain_s = 1e6
    with pytest.raises(ServiceFailed, match=r"still has the job after 45 s \(state leaving, pid 701\)"):
        agent.carry_out(Verb.STOP)


def test_a_stopped_agent_stays_stopped_until_it_is_started_or_the_next_login(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """A stop takes the job out, since KeepAlive would bring a killed one back; the file stays."""
    agent.carry_out(Verb.INSTALL, wanted)
    assert agent.carry_out(Verb.STOP).job.state is JobState.ABSENT
    launchd.clock.sleep(60)
    assert not agent.status().is_running
    assert agent.carry_out(Verb.STOP).steps == ()
    assert agent.carry_out(Verb.START).job.state is JobState.RUNNING
    agent.carry_out(Verb.STOP)
    launchd.log_out()
    launchd.clock.sleep(60)
    launchd.log_in(machine.paths.plist)
    assert agent.status().is_running


def test_a_restart_is_a_new_process(agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition) -> None:
    """Of the loaded definition, without a bootout."""
    agent.carry_out(Verb.INSTALL, wanted)
    before = launchd.jobs[TARGET].pid
    outcome = agent.carry_out(Verb.RESTART)
    assert outcome.job.pid not in (None, before)
    assert outcome.steps == (Step.KICKSTART_KILL, Step.AWAIT_ANSWER)


def test_a_restart_loads_a_file_that_was_edited(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, other: Definition
) -> None:
    """A kickstart would run the old one."""
    agent.carry_out(Verb.INSTALL, wanted)
    machine.paths.plist.write_bytes(render(other))
    assert any("older definition" in note for note in notes(agent.status()))
    agent.carry_out(Verb.RESTART)
    assert launchd.jobs[TARGET].definition == other


def test_a_crashed_server_comes_back_and_a_quit_one_does_not(
    agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """Status tells both apart, with the reason in launchd's words."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.end(TARGET, reason="JETSAM_REASON_MEMORY_PERPROCESSLIMIT")
    crashed = agent.status()
    assert crashed.job.state is JobState.SCHEDULED
    assert notes(crashed)[0].startswith("It ended with JETSAM_REASON_MEMORY_PERPROCESSLIMIT, and launchd starts it")
    launchd.clock.sleep(10)
    assert agent.status().is_running
    launchd.end(TARGET, 0)
    launchd.clock.sleep(60)
    quit_one = agent.status()
    assert quit_one.job.state is JobState.STOPPED
    assert notes(quit_one) == ("It ended by itself, as it was asked to: `periscope service start` starts it.",)
    assert agent.carry_out(Verb.START).steps == (Step.KICKSTART, Step.AWAIT_ANSWER)


def test_an_uninstalled_agent_leaves_its_data(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """Job and plist are gone, logs are not; again is no error."""
    agent.carry_out(Verb.INSTALL, wanted)
    machine.paths.err_log.write_text("a line\n")
    agent.carry_out(Verb.UNINSTALL)
    assert (launchd.jobs, on_disk(machine), machine.paths.err_log.read_text()) == ({}, None, "a line\n")
    assert agent.carry_out(Verb.UNINSTALL).steps == ()


def test_a_first_installation_that_crashes_leaves_nothing(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """The reason and the log's last lines are told; no agent is left to crash at every login."""
    machine.paths.logs.mkdir(parents=True)
    machine.paths.err_log.write_text("models.yaml:3: no such key\n")
    launchd.exits_with = 78
    with pytest.raises(ServiceFailed, match="exit code 78: EX_CONFIG") as failed:
        agent.carry_out(Verb.INSTALL, wanted)
    assert "models.yaml:3: no such key" in failed.value.message
    assert "Nothing is installed" in failed.value.message
    assert (launchd.jobs, on_disk(machine)) == ({}, None)


def test_an_upgrade_that_crashes_brings_the_last_definition_back(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, other: Definition
) -> None:
    """File and job are what they were, and the server runs."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.exits_by_config[other["ProgramArguments"][-1]] = 1
    with pytest.raises(ServiceFailed, match="back and loaded"):
        agent.carry_out(Verb.INSTALL, other)
    assert on_disk(machine) == wanted == launchd.jobs[TARGET].definition
    assert agent.status().is_running


def test_a_server_that_is_slow_to_answer_is_no_failure(
    agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """A process that runs may be reading a slow disk: it is left alone, and told."""
    launchd.is_deaf = True
    outcome = agent.carry_out(Verb.INSTALL, wanted)
    assert (outcome.job.state, outcome.is_answered) == (JobState.RUNNING, False)


def test_a_disabled_agent_is_enabled_first(agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition) -> None:
    """Whoever switched it off under Login Items and installs it again wants it."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.disabled.add("local.periscope.server")
    assert agent.status().is_disabled
    enabled = agent.carry_out(Verb.INSTALL, wanted)
    assert (enabled.steps, enabled.is_answered) == ((Step.ENABLE,), True)
    agent.carry_out(Verb.STOP)
    launchd.disabled.add("local.periscope.server")
    assert agent.carry_out(Verb.START).job.state is JobState.RUNNING


@pytest.mark.parametrize("verb", [Verb.INSTALL, Verb.START, Verb.STOP, Verb.RESTART])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_homebrew_s_agent_is_seen_and_left_alone(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, verb: Verb, *, is_loaded: bool
) -> None:
    """Loaded now, or lying there for the next login: no second one is installed, and its own commands are named."""
    if is_loaded:
        launchd.jobs[BREW] = Loaded({"ProgramArguments": ["/opt/p"]}, "/x", "running", pid=7)
    else:
        machine.paths.brew_plist.parent.mkdir(parents=True)
        machine.paths.brew_plist.write_bytes(render(wanted))
    with pytest.raises(ServiceFailed, match="brew services"):
        agent.carry_out(verb, wanted if verb is Verb.INSTALL else None)
    status = agent.status()
    assert (status.supervisor, status.label, status.is_running) == ("brew", "homebrew.mxcl.periscope", is_loaded)
    assert (launchd.changes(), on_disk(machine)) == ([], None)


@pytest.mark.parametrize("verb", [Verb.INSTALL, Verb.START, Verb.RESTART])
def test_without_a_graphical_session_nothing_is_started(
    agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition, verb: Verb
) -> None:
    """Over SSH with nobody at the screen the reason is told, instead of launchd's bare 5."""
    if verb is not Verb.INSTALL:
        agent.carry_out(Verb.INSTALL, wanted)
    launchd.log_out()
    launchd.manager = "Background"
    with pytest.raises(ServiceFailed, match="nobody is logged in at this Mac's screen"):
        agent.carry_out(verb, wanted if verb is Verb.INSTALL else None)
    assert agent.status().session == "Background"


def test_status_says_where_the_job_runs_and_what_that_means_for_speed(
    agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """In the user's own domain, as another spawn type, or asked over SSH."""
    agent.carry_out(Verb.INSTALL, wanted)
    assert (agent.status().job.domain, notes(agent.status())) == (GUI, ())
    launchd.manager = "Background"
    assert "Background session (SSH), the agent in gui/501" in notes(agent.status())[-1]
    launchd.manager = "Aqua"
    launchd.jobs[f"{USER}/local.periscope.server"] = launchd.jobs.pop(TARGET)
    assert "It runs in user/501" in notes(agent.status())[-1]
    launchd.jobs[f"{USER}/local.periscope.server"].definition["ProcessType"] = "Background"
    assert "background (5), not as interactive" in notes(agent.status())[-1]
    agent.carry_out(Verb.INSTALL, wanted)
    assert (list(launchd.jobs), notes(agent.status())) == ([TARGET], ())


def test_a_server_started_by_hand_is_not_fought_with(machine: Machine, wanted: Definition) -> None:
    """Its port is taken; that is told before anything is written."""
    agent = LaunchAgent(machine, answers=lambda _: True)
    with pytest.raises(ServiceFailed, match="launchd does not run answers"):
        agent.carry_out(Verb.INSTALL, wanted)
    assert on_disk(machine) is None


def test_root_has_no_agent(machine: Machine, wanted: Definition) -> None:
    """`sudo periscope service install` would install it for the wrong user."""
    agent = LaunchAgent(replace(machine, uid=0), answers=lambda _: False)
    with pytest.raises(ServiceFailed, match="without sudo"):
        agent.carry_out(Verb.INSTALL, wanted)


@pytest.mark.parametrize("verb", [Verb.START, Verb.RESTART])
def test_what_is_not_installed_is_not_started(agent: LaunchAgent, verb: Verb) -> None:
    """The command that installs it is named."""
    with pytest.raises(ServiceFailed, match="periscope service install"):
        agent.carry_out(verb)


@pytest.mark.parametrize(
    ("refused", "told"),
    [
        (("bootstrap", Answer(5, err="Bootstrap failed: 5: Input/output error\n")), "Input/output error.*Console"),
        (("bootstrap", Answer(5, err="Bootstrap failed: 125: Domain does not\n")), "Nobody is logged in"),
        (("bootstrap", Answer(119, err="Bootstrap failed: 119: Service is disabled\n")), "Login Items"),
        (("enable", Answer(1, err="Operation not permitted\n")), "`launchctl enable` failed: Operation not permitted"),
        (("bootstrap", Answer(9)), "launchctl ended with 9"),
    ],
)
def test_what_launchd_refuses_for_good_is_told_and_undone(
    agent: LaunchAgent, launchd: FakeLaunchd, wanted: Definition, refused: tuple[str, Answer], told: str
) -> None:
    """After a bounded time, with launchd's own words and what to do; nothing half-installed is left."""
    launchd.refuses = dict([refused])
    with pytest.raises(ServiceFailed, match=told):
        agent.carry_out(Verb.INSTALL, wanted)
    assert (launchd.jobs, agent.status().is_installed) == ({}, False)


def test_a_failure_before_anything_was_written_leaves_the_running_server(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, other: Definition
) -> None:
    """A folder that cannot be made is no reason to end anybody's stream."""
    agent.carry_out(Verb.INSTALL, wanted)
    machine.paths.logs.rmdir()
    machine.paths.logs.write_text("in the way")
    with pytest.raises(ServiceFailed, match="cannot be made"):
        agent.carry_out(Verb.INSTALL, other)
    assert launchd.jobs[TARGET].state == "running"
    assert on_disk(machine) == wanted


def test_a_broken_file_is_replaced(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """Whatever lies under the agent's name is not read as something it is not."""
    machine.paths.plist.parent.mkdir(parents=True)
    machine.paths.plist.write_text("half a fi")
    assert "not what this version would write" in " ".join(notes(agent.status())) or not agent.status().has_program
    agent.carry_out(Verb.INSTALL, wanted)
    assert on_disk(machine) == wanted == launchd.jobs[TARGET].definition


def test_a_program_that_is_gone_is_told(agent: LaunchAgent, machine: Machine, wanted: Definition) -> None:
    """After an installer moved its link."""
    agent.carry_out(Verb.INSTALL, wanted)
    (machine.home / ".local/bin/periscope").unlink()
    assert "is not there any more" in " ".join(notes(agent.status()))


def test_homebrew_s_log_is_found(agent: LaunchAgent, machine: Machine, wanted: Definition) -> None:
    """Its agent has one file for both streams, where Homebrew keeps logs."""
    log = "/opt/homebrew/var/log/periscope.log"
    machine.paths.brew_plist.parent.mkdir(parents=True)
    machine.paths.brew_plist.write_bytes(render(wanted | {"StandardOutPath": log, "StandardErrorPath": log}))
    assert agent.status().logs == (machine.paths.server_log, Path(log))


def test_a_folder_that_refuses_the_file_is_told(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """Some installers leave ~/Library/LaunchAgents to root; here a folder lies where the file should."""
    (machine.paths.plist.with_suffix(".new")).mkdir(parents=True)
    with pytest.raises(ServiceFailed, match=r"cannot be written.*Check who owns"):
        agent.carry_out(Verb.INSTALL, wanted)
    assert (launchd.jobs, on_disk(machine)) == ({}, None)


def test_a_rehearsal_changes_nothing(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition
) -> None:
    """It has the steps that the verb would take."""
    steps = agent.rehearse(Verb.INSTALL, wanted).steps
    assert (launchd.changes(), on_disk(machine)) == ([], None)
    assert agent.carry_out(Verb.INSTALL, wanted).steps == steps


def test_the_installed_models_yaml_is_known(agent: LaunchAgent, machine: Machine, tmp_path: Path) -> None:
    """Status asks the server where that file has it listen, not this shell's."""
    spec = AgentSpec(machine.home / ".local/bin/periscope", machine.paths, tmp_path / "mine.yaml")
    agent.carry_out(Verb.INSTALL, definition_of(spec))
    assert agent.status().config == tmp_path / "mine.yaml"


def test_a_job_that_was_leaving_is_not_brought_back(
    agent: LaunchAgent, machine: Machine, launchd: FakeLaunchd, wanted: Definition, other: Definition
) -> None:
    """Somebody had stopped it when the failed installation came: the file is put back, the job stays out."""
    agent.carry_out(Verb.INSTALL, wanted)
    launchd.run("bootout", TARGET)
    launchd.exits_with = 1
    with pytest.raises(ServiceFailed, match="that was there before is back"):
        agent.carry_out(Verb.INSTALL, other)
    assert (on_disk(machine), launchd.jobs) == (wanted, {})
