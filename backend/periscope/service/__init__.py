"""Periscope as a launchd agent: its plist, its job, its state. `DESIGN.md` tells a job's states."""

from periscope.service.advice import warnings_for
from periscope.service.agent import BREW_LABEL, LABEL, AgentPaths, ServiceFailed
from periscope.service.logs import Follower, last_lines
from periscope.service.machine import Clock, Machine, this_machine
from periscope.service.plan import Step, Verb
from periscope.service.plist import AgentSpec, Definition, config_of, definition_of, render
from periscope.service.program import stable_program
from periscope.service.refusal import MAC_ONLY
from periscope.service.status import Status, notes
from periscope.service.supervision import LaunchAgent, Outcome
from periscope.service.wording import told

__all__ = [
    "BREW_LABEL",
    "LABEL",
    "MAC_ONLY",
    "AgentPaths",
    "AgentSpec",
    "Clock",
    "Definition",
    "Follower",
    "LaunchAgent",
    "Machine",
    "Outcome",
    "ServiceFailed",
    "Status",
    "Step",
    "Verb",
    "config_of",
    "definition_of",
    "last_lines",
    "notes",
    "render",
    "stable_program",
    "this_machine",
    "told",
    "warnings_for",
]
