"""Each step in words: the command that is given, or what is waited for. Pure."""

from __future__ import annotations

from periscope.service.agent import LABEL
from periscope.service.machine import Machine
from periscope.service.plan import Step


def told(step: Step, machine: Machine) -> str:
    """One line for a person, with everything that the step touches."""
    paths, target = machine.paths, f"{machine.gui}/{LABEL}"
    words = {
        Step.MAKE_FOLDERS: f"make sure that {paths.logs} and {paths.plist.parent} exist",
        Step.WRITE_PLIST: f"write {paths.plist}",
        Step.REMOVE_PLIST: f"remove {paths.plist}",
        Step.AWAIT_GONE: "wait until launchd has let go of the job",
        Step.AWAIT_ANSWER: "wait until the server answers",
        Step.BOOTSTRAP: f"launchctl bootstrap {machine.gui} {paths.plist}",
    }
    return words.get(step, f"launchctl {step.value} {target}")
