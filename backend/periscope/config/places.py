"""Where a user's Periscope keeps what is no setting: its state and its logs. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from periscope.config.layers import ENV_HOME
from periscope.config.resolve import absolute

_NAME = "periscope"


@dataclass(frozen=True, slots=True)
class Places:
    """Absolute folders, which need not exist.

    Attributes:
        state: the lock, `server.json` and the token of the running server.
        logs: the server's own log.
    """

    state: Path
    logs: Path


def places(env: Mapping[str, str], *, platform: str, cwd: Path, home: Path) -> Places:
    """Below PERISCOPE_HOME, else where the platform keeps such things (`platform` as `sys.platform`)."""
    if env.get(ENV_HOME):
        own = absolute(env[ENV_HOME], cwd)
        return Places(own / "state", own / "logs")
    if platform == "darwin":
        library = home / "Library"
        return Places(library / "Application Support" / _NAME, library / "Logs" / _NAME)
    given = env.get("XDG_STATE_HOME", "")
    state = (absolute(given, home) if given else home / ".local/state") / _NAME
    return Places(state, state / "logs")
