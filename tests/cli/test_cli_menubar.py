"""`periscope menubar`: the plugin for SwiftBar, and a menu of a running server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.menubar_verbs import swiftbar_folder
from periscope.service import Machine
from tests.cli.process import CommandProcess, ServeProcess
from tests.service.fake_launchd import FakeClock, FakeLaunchd, mac

cli = CliRunner()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return mac(tmp_path, FakeLaunchd(FakeClock()))


def test_the_plugin_is_written_into_swiftbars_folder(machine: Machine, tmp_path: Path) -> None:
    """It can be run, starts this program, and is written again over itself; without a folder the fix is told."""
    folder = tmp_path / "plugins"
    folder.mkdir()
    for _ in range(2):
        written = cli.invoke(app, ["menubar", "install", "--folder", str(folder), "--json"], obj=machine)
        assert written.exit_code == 0, written.output
    plugin = Path(json.loads(written.stdout)["path"])
    assert os.access(plugin, os.X_OK)
    assert plugin.read_text() == cli.invoke(app, ["menubar", "install", "--dry-run"], obj=machine).stdout
    missing = cli.invoke(app, ["menubar", "install", "--folder", str(tmp_path / "nowhere")], obj=machine)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "--folder" in missing.stderr


def test_swiftbars_folder_is_the_one_of_its_settings() -> None:
    """None before it was chosen, or where there is no SwiftBar."""

    def absent() -> str:
        raise OSError

    assert swiftbar_folder(lambda: "~/Plugins\n") == Path.home() / "Plugins"
    assert swiftbar_folder(lambda: "\n") is None
    assert swiftbar_folder(absent) is None


def test_a_menu_shows_the_running_server(running: ServeProcess, short_config: Path, machine: Machine) -> None:
    """As text for SwiftBar and as JSON; a server that is not there is a menu, too."""
    common = ["menubar", "render", "--config", str(short_config)]
    text = cli.invoke(app, [*common, "--url", running.url], obj=machine).stdout
    assert text.splitlines()[0] == " | sfimage=eye emojize=false symbolize=false"
    assert "\ntiny: ready, " in text
    told = json.loads(cli.invoke(app, [*common, "--url", running.url, "--json"], obj=machine).stdout)
    assert told["sections"][1][0]["text"].startswith("tiny: ready, ")
    gone = cli.invoke(app, [*common, "--url", "http://127.0.0.1:1"], obj=machine)
    assert gone.exit_code == 0
    assert "Periscope is not running" in gone.stdout
    assert cli.invoke(app, [*common, "--follow", "--json"], obj=machine).exit_code == 2


def test_a_followed_menu_is_printed_at_each_change(running: ServeProcess, short_config: Path) -> None:
    """A frame at once, and another when a model is unloaded or loaded, each ended as SwiftBar wants it."""
    common = ["--url", running.url, "--config", str(short_config)]
    with CommandProcess("menubar", "render", "--follow", *common) as following:
        following.wait_for(r"tiny: ready[^~]*\n~~~\n")
        assert cli.invoke(app, ["unload", "tiny", *common]).exit_code == 0
        following.wait_for(r"tiny: unloaded[^~]*\n~~~\n")
        assert cli.invoke(app, ["load", "tiny", *common]).exit_code == 0
        following.wait_for(r"unloaded(?s:.*)tiny: ready[^~]*\n~~~\n")


def test_the_app_says_what_it_needs(machine: Machine) -> None:
    """Here it cannot run: the extra and the other way are named."""
    ended = cli.invoke(app, ["menubar", "run"], obj=machine)
    assert ended.exit_code == 1
    assert "mlx-periscope[menubar]" in ended.stderr
