"""What `launchctl print` says, read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.service.printed import JobState, read_disabled, read_job
from tests.service.fake_launchd import GUI, Loaded, printed

PROGRAM = ["/Users/sample/.local/bin/periscope", "serve", "--config", "/Users/sample/a = b/models.yaml"]
LABEL = "local.periscope.server"


def loaded(**values: object) -> str:
    job = Loaded({"ProgramArguments": PROGRAM, "ProcessType": "Interactive", "ExitTimeOut": 30}, "/x.plist")
    for name, value in values.items():
        setattr(job, name, value)
    return printed(job, GUI, LABEL)


def test_a_running_job_is_read_whole() -> None:
    """State, process, runs, limits and arguments, none of them from the blocks below."""
    job = read_job(loaded(state="running", pid=4711, runs=3, last_exit="1"), GUI)
    assert (job.state, job.pid, job.runs, job.last_exit) == (JobState.RUNNING, 4711, 3, "1")
    assert (job.exit_timeout_s, job.spawn_type, job.is_interactive) == (30, "interactive (4)", True)
    assert job.arguments == tuple(PROGRAM)
    assert (job.domain, job.is_outside_gui) == (GUI, False)


def test_lines_of_nested_blocks_are_not_the_job_s() -> None:
    """A job without a process has none, though an environment says `pid = 1` and a coalition `state = active`."""
    job = read_job(loaded(state="not running"), GUI)
    assert (job.state, job.pid, job.ending) == (JobState.STOPPED, None, None)


@pytest.mark.parametrize(
    ("printed_state", "state"),
    [
        ("running", JobState.RUNNING),
        ("not running", JobState.STOPPED),
        ("exited", JobState.STOPPED),
        ("spawn scheduled", JobState.SCHEDULED),
        ("xpcproxy", JobState.SCHEDULED),
        ("SIGTERMed", JobState.LEAVING),
        ("SIGKILLed", JobState.LEAVING),
        ("something new", JobState.UNKNOWN),
    ],
)
def test_every_state_that_was_seen_is_known(printed_state: str, state: JobState) -> None:
    """A job that is told to end is not taken for one that has ended, and new words are not guessed at."""
    assert read_job(loaded(state=printed_state), GUI).state is state


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        ({"last_exit": "0"}, "exit code 0"),
        ({"last_exit": "78: EX_CONFIG"}, "exit code 78: EX_CONFIG"),
        ({"last_reason": "JETSAM_REASON_MEMORY_PERPROCESSLIMIT"}, "JETSAM_REASON_MEMORY_PERPROCESSLIMIT"),
        ({}, None),
    ],
)
def test_the_last_ending_is_told_in_launchd_s_words(values: dict[str, object], ending: str | None) -> None:
    """Exit codes with and without a name, a kill for memory, and a job that never ended."""
    assert read_job(loaded(state="spawn scheduled", **values), GUI).ending == ending


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Output of a system to come gives fields that are None, never an error."""
    job = read_job(text, GUI)
    assert job.is_loaded


@given(st.lists(st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1)))
def test_arguments_are_read_as_they_are_printed(arguments: list[str]) -> None:
    """Spaces, signs and braces in paths do not end the list early."""
    text = printed(Loaded({"ProgramArguments": ["/p", *arguments]}, "/x"), GUI, LABEL)
    assert read_job(text, GUI).arguments == ("/p", *arguments)


def test_disabled_labels_are_found_in_both_spellings() -> None:
    """Newer systems print `disabled`, older ones `true`; other labels do not count."""
    for word in ("disabled", "true"):
        assert read_disabled(f'\tdisabled services = {{\n\t\t"{LABEL}" => {word}\n\t}}\n', LABEL)
    assert not read_disabled(f'\t\t"{LABEL}" => enabled\n\t\t"{LABEL}.other" => disabled\n', LABEL)
