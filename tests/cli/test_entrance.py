"""A server's place among others, taken before anything is loaded."""

from __future__ import annotations

import logging
import socket
import sys
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.cli.entrance import entered
from periscope.cli.exits import CommandFailed, ExitCode
from periscope.config import Config, Places
from periscope.service import MAX_FAST_CRASHES, Machine, StateFolder, read_server
from tests.cli.stub import ALIVE, stub_server
from tests.config.files import ONE, load_text
from tests.service.fake_launchd import FakeClock, FakeLaunchd


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    launchd = FakeLaunchd(FakeClock())
    return Machine("linux", 501, tmp_path, {}, "periscope", Path(sys.executable), launchd, launchd.clock)


def config_of(home: Path, port: int = 0) -> Config:
    config = load_text(f"server: {{port: {port}}}\n{ONE}")
    return replace(config, places=Places(home / "state", home / "logs"))


def test_the_server_is_found_at_the_port_it_got(tmp_path: Path, machine: Machine) -> None:
    """Also when any port was asked for; the token that it takes is where server.json says."""
    config = config_of(tmp_path)
    with entered(config, machine) as entrance:
        found = read_server(StateFolder(config.places.state))
        assert found == entrance.server
        assert found is not None
        assert found.port == entrance.listeners[0].getsockname()[1] != 0
        assert found.token_path is not None
        assert Path(found.token_path).read_text().strip() == entrance.token
        assert found.supervisor is None
    assert read_server(StateFolder(config.places.state)) is None


def test_a_second_server_on_the_same_port_ends_with_0_and_names_the_first(tmp_path: Path, machine: Machine) -> None:
    """To launchd 0 is a wanted end, so it does not start the second one again and again."""
    with entered(config_of(tmp_path), machine) as entrance:
        server = entrance.server
        with (
            pytest.raises(CommandFailed, match=rf"already runs at {server.url} \(pid {server.pid}") as failed,
            entered(config_of(tmp_path, server.port), machine),
        ):
            pytest.fail("there are two")
        assert failed.value.code is ExitCode.OK
        assert read_server(StateFolder(tmp_path / "state")) == server


def test_a_second_server_waits_for_one_that_stops(tmp_path: Path, machine: Machine) -> None:
    """Whoever stops a server and starts the next in one breath gets it, on the same port."""
    clock = machine.clock
    assert isinstance(clock, FakeClock)
    with ExitStack() as first:
        entrance = first.enter_context(entered(config_of(tmp_path), machine))
        entrance.stops()
        assert read_server(StateFolder(tmp_path / "state")) is None
        clock.on_tick.append(first.close)
        with entered(config_of(tmp_path, entrance.server.port), machine) as second:
            assert second.server.port == entrance.server.port
            assert read_server(StateFolder(tmp_path / "state")) == second.server


def test_one_that_neither_serves_nor_ends_is_named(tmp_path: Path, machine: Machine) -> None:
    """Launchd tries again later; a person knows what to end."""
    with entered(config_of(tmp_path), machine) as first:
        first.stops()
        with pytest.raises(CommandFailed, match=r"server\.lock") as failed, entered(config_of(tmp_path), machine):
            pytest.fail("there are two")
    assert failed.value.code is ExitCode.PORT_HELD


def test_a_second_server_on_another_port_runs_and_is_not_found(tmp_path: Path, machine: Machine) -> None:
    """Whoever names another port wants a second one; commands go on to find the first."""
    with entered(config_of(tmp_path), machine) as first, entered(config_of(tmp_path), machine) as second:
        assert second.server.port != first.server.port
        assert second.token == first.token
        assert read_server(StateFolder(tmp_path / "state")) == first.server


def test_a_periscope_of_another_home_on_the_port_is_named_too(tmp_path: Path, machine: Machine) -> None:
    """It has another lock, but its port tells."""
    with (
        stub_server(get=ALIVE) as other,
        pytest.raises(CommandFailed, match=f"already runs at {other.url}") as failed,
        entered(config_of(tmp_path, int(other.url.rpartition(":")[2])), machine),
    ):
        pytest.fail("there are two")
    assert failed.value.code is ExitCode.OK


def test_a_foreign_program_on_the_port_is_75_and_the_lock_is_free_again(tmp_path: Path, machine: Machine) -> None:
    """Launchd tries again later, and then nothing is in the way."""
    with (
        stub_server(get=b"something else") as other,
        pytest.raises(CommandFailed, match="held by another program") as failed,
        entered(config_of(tmp_path, int(other.url.rpartition(":")[2])), machine),
    ):
        pytest.fail("there are two")
    assert failed.value.code is ExitCode.PORT_HELD
    with entered(config_of(tmp_path), machine) as entrance:
        assert read_server(StateFolder(tmp_path / "state")) == entrance.server


def test_after_five_fast_crashes_the_brake_holds_until_a_start_lasts(tmp_path: Path, machine: Machine) -> None:
    """A start that ends without having settled is a crash, whatever ended it."""
    for _ in range(MAX_FAST_CRASHES):
        with entered(config_of(tmp_path), machine) as entrance:
            assert entrance.braked is None
    with entered(config_of(tmp_path), machine) as entrance:
        assert "ended 5 times in a row" in (entrance.braked or "")
        entrance.has_settled()
    with entered(config_of(tmp_path), machine) as entrance:
        assert entrance.braked is None


def test_a_state_folder_that_cannot_be_made_stops_nobody(
    tmp_path: Path, machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """The server serves; the log says what is missing and how to have it."""
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING), entered(config_of(tmp_path / "file"), machine) as entrance:
        assert entrance.token is None
        assert entrance.server.token_path is None
        with socket.create_connection(("127.0.0.1", entrance.server.port), timeout=10):
            pass
    assert "Set PERISCOPE_HOME" in caplog.text


@pytest.mark.parametrize(
    ("name", "supervisor"),
    [("local.periscope.server", "launchd"), ("homebrew.mxcl.periscope", "brew"), ("0", None), ("com.apple.x", None)],
)
def test_who_started_it_is_told(tmp_path: Path, machine: Machine, name: str, supervisor: str | None) -> None:
    """Launchd names the job in the environment; a terminal on a Mac has "0" there."""
    with entered(config_of(tmp_path), replace(machine, env={"XPC_SERVICE_NAME": name})) as entrance:
        assert entrance.identity.supervisor == supervisor
