"""Which steps a verb needs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from periscope.service.plan import Step, Verb, View, plan
from periscope.service.plist import Definition
from periscope.service.printed import Job, JobState

RELOAD = ("bootout", "await gone", "bootstrap", "await answer")


def job_of(definition: Definition, state: JobState = JobState.RUNNING, domain: str = "gui/501") -> Job:
    return Job(state, domain, arguments=tuple(definition["ProgramArguments"]), spawn_type="interactive (4)")


def test_a_first_installation_writes_enables_and_loads(wanted: Definition) -> None:
    """Nothing is booted out that is not there."""
    assert plan(Verb.INSTALL, View(wanted=wanted)) == (
        Step.MAKE_FOLDERS,
        Step.WRITE_PLIST,
        Step.ENABLE,
        Step.BOOTSTRAP,
        Step.AWAIT_ANSWER,
    )


def test_what_is_so_already_needs_no_step(wanted: Definition) -> None:
    """Each verb said twice does nothing the second time, except for a restart."""
    running = View(job_of(wanted), wanted, has_plist=True, on_disk=wanted)
    assert plan(Verb.INSTALL, running) == plan(Verb.START, running) == ()
    assert plan(Verb.STOP, View(has_plist=True, on_disk=wanted)) == ()
    assert plan(Verb.UNINSTALL, View()) == ()
    assert plan(Verb.RESTART, running) == (Step.KICKSTART_KILL, Step.AWAIT_ANSWER)


def test_a_changed_definition_is_loaded_anew(wanted: Definition, other: Definition) -> None:
    """A kickstart would run what launchd has read before, so the job is taken out and comes back."""
    changed = View(job_of(wanted), other, has_plist=True, on_disk=wanted)
    assert plan(Verb.INSTALL, changed) == (Step.MAKE_FOLDERS, Step.WRITE_PLIST, Step.ENABLE, *RELOAD)
    edited = View(job_of(wanted), has_plist=True, on_disk=other)
    assert plan(Verb.RESTART, edited)[-4:] == RELOAD


@pytest.mark.parametrize(
    "job",
    [
        Job(JobState.RUNNING, "gui/501", exit_timeout_s=5),
        Job(JobState.RUNNING, "gui/501", spawn_type="daemon (3)"),
        Job(JobState.RUNNING, "user/501"),
    ],
)
def test_a_job_with_other_limits_or_in_the_wrong_session_is_loaded_anew(wanted: Definition, job: Job) -> None:
    """The file may be right while launchd holds an older one, or holds it where the GPU is slower."""
    assert plan(Verb.INSTALL, View(job, wanted, has_plist=True, on_disk=wanted))[-4:] == RELOAD


def test_a_disabled_job_is_enabled(wanted: Definition) -> None:
    """It runs now, but would not at the next login."""
    view = View(job_of(wanted), wanted, has_plist=True, on_disk=wanted, is_disabled=True)
    assert plan(Verb.INSTALL, view) == (Step.ENABLE,)


@pytest.mark.parametrize("state", [JobState.STOPPED, JobState.SCHEDULED])
def test_a_loaded_job_without_a_process_is_kickstarted(wanted: Definition, state: JobState) -> None:
    """After a clean end, and without waiting for the throttle after a crash."""
    view = View(job_of(wanted, state), has_plist=True, on_disk=wanted)
    assert plan(Verb.START, view) == plan(Verb.RESTART, view) == (Step.KICKSTART, Step.AWAIT_ANSWER)
    assert plan(Verb.INSTALL, replace(view, wanted=wanted)) == (Step.KICKSTART, Step.AWAIT_ANSWER)


def test_a_job_that_is_leaving_is_waited_for(wanted: Definition) -> None:
    """A second bootout would be refused, and so would a bootstrap before launchd has let go."""
    view = View(job_of(wanted, JobState.LEAVING), wanted, has_plist=True, on_disk=wanted)
    assert plan(Verb.STOP, view) == (Step.AWAIT_GONE,)
    assert plan(Verb.START, view)[-3:] == (Step.AWAIT_GONE, Step.BOOTSTRAP, Step.AWAIT_ANSWER)
    assert Step.BOOT_OUT not in plan(Verb.INSTALL, view)


def test_a_job_is_gone_before_its_file_is(wanted: Definition) -> None:
    """Uninstalling a running agent, and one of which only the file or only the job is left."""
    both = View(job_of(wanted), has_plist=True, on_disk=wanted)
    assert plan(Verb.UNINSTALL, both) == (Step.BOOT_OUT, Step.AWAIT_GONE, Step.REMOVE_PLIST)
    assert plan(Verb.UNINSTALL, View(has_plist=True)) == (Step.REMOVE_PLIST,)
    assert plan(Verb.UNINSTALL, View(job_of(wanted))) == (Step.BOOT_OUT, Step.AWAIT_GONE)


def test_every_bootout_is_waited_for(wanted: Definition, other: Definition) -> None:
    """Whatever the view, no bootstrap and no removal comes before launchd has let go of the job."""
    for verb in Verb:
        for state in JobState:
            for on_disk in (None, wanted, other):
                view = View(job_of(wanted, state), wanted, has_plist=on_disk is not None, on_disk=on_disk)
                steps = plan(verb, view if state is not JobState.ABSENT else replace(view, job=Job(state)))
                after = steps[steps.index(Step.BOOT_OUT) + 1] if Step.BOOT_OUT in steps else Step.AWAIT_GONE
                assert after is Step.AWAIT_GONE
