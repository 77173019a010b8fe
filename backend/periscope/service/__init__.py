"""Periscope as a process that others start, find and stop: the launchd agent, the lock and `server.json`."""

from periscope.service.advice import warnings_for
from periscope.service.agent import BREW_LABEL, LABEL, LOG_NAME, AgentPaths, ServiceFailed
from periscope.service.discovery import RunningServer, StateFolder, read_server
from periscope.service.instance import Instance, held, read_or_make_token
from periscope.service.logs import Follower, last_lines
from periscope.service.machine import Clock, Machine, this_machine
from periscope.service.plan import Step, Verb
from periscope.service.plist import AgentSpec, Definition, config_of, definition_of, render
from periscope.service.program import stable_program
from periscope.service.refusal import MAC_ONLY
from periscope.service.starts import MAX_FAST_CRASHES, SETTLED_S, StartRecord
from periscope.service.status import Status, notes
from periscope.service.supervision import LaunchAgent, Outcome
from periscope.service.wording import told

__all__ = [
    "BREW_LABEL",
    "LABEL",
    "LOG_NAME",
    "MAC_ONLY",
    "MAX_FAST_CRASHES",
    "SETTLED_S",
    "AgentPaths",
    "AgentSpec",
    "Clock",
    "Definition",
    "Follower",
    "Instance",
    "LaunchAgent",
    "Machine",
    "Outcome",
    "RunningServer",
    "ServiceFailed",
    "StartRecord",
    "StateFolder",
    "Status",
    "Step",
    "Verb",
    "config_of",
    "definition_of",
    "held",
    "last_lines",
    "notes",
    "read_or_make_token",
    "read_server",
    "render",
    "stable_program",
    "this_machine",
    "told",
    "warnings_for",
]
