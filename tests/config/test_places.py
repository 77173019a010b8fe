"""Where state and logs are kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.config.places import places

HOME, CWD = Path("/home/sample"), Path("/start")


@pytest.mark.parametrize(
    ("env", "platform", "state", "logs"),
    [
        ({}, "darwin", "/home/sample/Library/Application Support/periscope", "/home/sample/Library/Logs/periscope"),
        ({}, "linux", "/home/sample/.local/state/periscope", "/home/sample/.local/state/periscope/logs"),
        ({"XDG_STATE_HOME": "/var/me"}, "linux", "/var/me/periscope", "/var/me/periscope/logs"),
        ({"PERISCOPE_HOME": "own", "XDG_STATE_HOME": "/x"}, "linux", "/start/own/state", "/start/own/logs"),
        ({"PERISCOPE_HOME": "/own"}, "darwin", "/own/state", "/own/logs"),
    ],
)
def test_places(env: dict[str, str], platform: str, state: str, logs: str) -> None:
    """PERISCOPE_HOME before the platform's own folders, which are absolute whatever the environment says."""
    found = places(env, platform=platform, cwd=CWD, home=HOME)
    assert (str(found.state), str(found.logs)) == (state, logs)
