"""What stands around a server: its port, and the launchd agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.cli.address import address_of
from periscope.cli.doctor.finding import Finding, Level
from periscope.cli.exits import CommandFailed
from periscope.cli.listen import listen
from periscope.service import LaunchAgent, Machine, ServiceFailed, notes

if TYPE_CHECKING:
    from periscope.config import Config


def look_at_port(config: Config) -> Finding:
    """Whether a Periscope answers at the configured address, or could listen there, and where else one runs."""
    from periscope.cli.client import is_periscope, running_elsewhere

    host, port, address = config.server.host, config.server.port, address_of(config.server)
    url = address.url
    if (port or address.uds) and is_periscope(address):
        return Finding("port", Level.OK, f"a Periscope answers at {url}")
    if address.uds:
        return Finding("port", Level.SKIPPED, f"the server listens on {url} alone")
    try:
        listeners = listen(host, port)
    except CommandFailed as error:
        fix = f"`lsof -nP -iTCP:{port} -sTCP:LISTEN` names the program; or set `server.port` to another port."
        return Finding("port", Level.FAILURE, error.message, fix)
    for listener in listeners:
        listener.close()
    elsewhere = running_elsewhere(config)
    running = "" if elsewhere is None else f"a Periscope answers at {elsewhere.url}, and "
    return Finding("port", Level.OK, f"{running}{url} is free")


def look_at_agent(machine: Machine) -> Finding:
    """The launchd agent, on a Mac."""
    from periscope.cli.service_probe import answers

    if not machine.has_launchd:
        return Finding("launchd", Level.SKIPPED, "this is no Mac")
    try:
        found = LaunchAgent(machine, answers=answers(machine)).status()
    except ServiceFailed as error:
        return Finding("launchd", Level.WARNING, error.message)
    if not found.is_installed:
        return Finding("launchd", Level.OK, "no agent is installed; `periscope service install` starts one at login")
    state = f"{found.label} is {found.job.state.value if found.job.is_loaded else 'not loaded'}"
    told = notes(found)
    if not told:
        return Finding("launchd", Level.OK if found.is_running else Level.WARNING, state)
    return Finding("launchd", Level.WARNING, f"{state}. {told[0]}", "`periscope service status` tells more.")
