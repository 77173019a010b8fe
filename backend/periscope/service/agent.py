"""What the agent is called and where its files lie. Pure: no file is touched here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

#: launchd wants the file to be called `<Label>.plist`.
LABEL = "local.periscope.server"
#: The label that Homebrew gives the agent of `brew services start periscope`.
BREW_LABEL = "homebrew.mxcl.periscope"
#: The server's own log, in the folder of its logs.
LOG_NAME = "server.log"


class ServiceFailed(Exception):
    """The service cannot be brought to the state that was asked for; `message` names the reason and the fix."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True, slots=True)
class AgentPaths:
    """All paths of the agent below one home folder."""

    home: Path

    @property
    def plist(self) -> Path:
        """The definition that launchd loads at login."""
        return self.home / "Library/LaunchAgents" / f"{LABEL}.plist"

    @property
    def brew_plist(self) -> Path:
        """Where Homebrew puts its own agent's definition."""
        return self.home / "Library/LaunchAgents" / f"{BREW_LABEL}.plist"

    @property
    def logs(self) -> Path:
        """The folder of all logs. launchd does not make it, and a job whose log cannot be opened does not start."""
        return self.home / "Library/Logs/periscope"

    @property
    def server_log(self) -> Path:
        """The server's own log, which it rotates."""
        return self.logs / LOG_NAME

    @property
    def out_log(self) -> Path:
        """What the server writes to stdout: nothing, unless it fails very early."""
        return self.logs / "launchd.out.log"

    @property
    def err_log(self) -> Path:
        """What the server writes to stderr: what it says before its own log begins, and when it fails without it."""
        return self.logs / "launchd.err.log"
