"""The state folder: one server at a time, and how others find it."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.service import RunningServer, StateFolder, held, read_or_make_token, read_server
from tests.service.fake_launchd import FakeClock

SERVER = RunningServer(
    pid=4242,
    host="127.0.0.1",
    port=7374,
    url="http://127.0.0.1:7374",
    version="1.2.3",
    started_at=1764383836.25,
    instance_id="9f3c",
    token_path="/state/token",  # noqa: S106 - a path
)
#: Takes the lock of a folder, writes server.json, says so, and holds on until it is killed.
HOLDER = """
import sys
from pathlib import Path
from periscope.service import RunningServer, StateFolder, held
from periscope.service.machine import SystemClock
with held(StateFolder(Path(sys.argv[1])), SystemClock()) as instance:
    instance.publish(RunningServer(1, "h", 2, "u", "v", 0.0, "killed"))
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> StateFolder:
    return StateFolder(tmp_path / "home" / "state")


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_server_is_found_while_it_runs_and_not_afterwards(folder: StateFolder) -> None:
    """What was written is read again, by the owner of the file alone."""
    with held(folder, FakeClock()) as instance:
        assert instance is not None
        instance.publish(SERVER)
        assert read_server(folder) == SERVER
        assert json.loads(folder.server.read_text())["schema_version"] == 1
        assert {mode_of(folder.server), mode_of(folder.lock)} == {0o600}
        assert mode_of(folder.path) == 0o700
    assert read_server(folder) is None


def test_only_one_holds_the_folder(folder: StateFolder) -> None:
    """The second is told so at once, and leaves the first one's file alone."""
    with held(folder, FakeClock()) as first:
        assert first is not None
        first.publish(SERVER)
        with held(folder, FakeClock()) as second:
            assert second is None
        assert read_server(folder) == SERVER
    with held(folder, FakeClock()) as third:
        assert third is not None


def test_a_killed_server_leaves_nothing_that_blocks_the_next(folder: StateFolder) -> None:
    """SIGKILL frees the lock; the file that was left behind is removed."""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", HOLDER, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with held(folder, FakeClock()) as second:
            assert second is None
        holder.kill()
    assert read_server(folder) is not None
    with held(folder, FakeClock()) as instance:
        assert instance is not None
        assert read_server(folder) is None


def test_a_server_leaves_the_file_of_another_alone(folder: StateFolder) -> None:
    """Whoever replaced server.json by hand keeps it."""
    with held(folder, FakeClock()) as instance:
        assert instance is not None
        instance.publish(SERVER)
        folder.server.write_text(folder.server.read_text().replace("9f3c", "other"))
    assert read_server(folder) == replace(SERVER, instance_id="other")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": 1}', json.dumps({"pid": "1"})], ids=repr)
def test_a_file_that_cannot_be_used_is_none(folder: StateFolder, text: str) -> None:
    """Half a file or somebody else's is as good as none."""
    folder.make()
    folder.server.write_text(text)
    assert read_server(folder) is None


def test_fields_of_later_versions_are_passed_over(folder: StateFolder) -> None:
    """An older command finds a newer server."""
    with held(folder, FakeClock()) as instance:
        assert instance is not None
        instance.publish(SERVER)
        found = json.loads(folder.server.read_text())
        folder.server.write_text(json.dumps({**found, "dialects": ["openai"]}))
        assert read_server(folder) == SERVER
        folder.server.write_text(json.dumps({**found, "port": "7374"}))
        assert read_server(folder) is None


def test_a_server_that_stops_is_waited_for(folder: StateFolder) -> None:
    """It says no longer where it is, but has the lock until it has ended."""
    clock = FakeClock()
    with ExitStack() as stopping:
        first = stopping.enter_context(held(folder, clock))
        assert first is not None
        first.publish(SERVER)
        first.withdraw()
        with held(folder, clock, within_s=2.0) as impatient:
            assert impatient is None
        began_at = clock.now()
        clock.on_tick.append(lambda: stopping.close() if clock.now() > began_at + 1.0 else None)
        with held(folder, clock, within_s=20.0) as second:
            assert second is not None
            second.publish(SERVER)
            assert 1.0 < clock.now() - began_at < 1.2
            assert read_server(folder) == SERVER


def test_a_server_that_has_just_taken_the_lock_is_seen_as_soon_as_it_says_where_it_is(folder: StateFolder) -> None:
    """It binds its port in between; nobody waits longer than that."""
    clock = FakeClock()
    with held(folder, clock) as first:
        assert first is not None
        began_at = clock.now()
        clock.on_tick.append(lambda: first.publish(SERVER))
        with held(folder, clock, within_s=20.0) as second:
            assert second is None
        assert clock.now() - began_at < 0.1


def test_the_token_stays_the_same_and_is_private(folder: StateFolder) -> None:
    """Clients that hold it go on after a restart; a deleted one is made anew."""
    token = read_or_make_token(folder)
    assert len(token) >= 43
    assert mode_of(folder.token) == 0o600
    folder.token.chmod(0o644)
    assert read_or_make_token(folder) == token
    assert mode_of(folder.token) == 0o600
    folder.token.unlink()
    assert read_or_make_token(folder) != token
