"""`periscope token` and `logs`, and how commands find the server that wrote server.json."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from typer.testing import CliRunner

from periscope.cli.app import app
from periscope.cli.client import find_server
from periscope.config import load
from periscope.service import RunningServer, StateFolder
from periscope.service.discovery import write_server
from tests.cli.process import CommandProcess, ServeProcess
from tests.cli.stub import ALIVE, stub_server

cli = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text("server: {port: 1}\nmodels:\n  - {name: m, hf_id: a/b}\n")
    return file


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"PERISCOPE_HOME": str(tmp_path / "home")}


def folder_of(home: dict[str, str]) -> StateFolder:
    folder = StateFolder(Path(home["PERISCOPE_HOME"]) / "state")
    folder.make()
    return folder


def written(folder: StateFolder, url: str, log: Path | None = None) -> None:
    token = str(folder.token) if folder.token.exists() else None
    server = RunningServer(1, "127.0.0.1", 1, url, "0", 0.0, "id", token, None if log is None else str(log))
    write_server(folder, server)


def test_a_token_is_made_shown_and_replaced(config: Path, home: dict[str, str]) -> None:
    """None before the first start; `rotate` makes another one, which its owner alone can read."""
    common = ["--config", str(config)]
    missing = cli.invoke(app, ["token", "show", *common], env=home)
    assert (missing.exit_code, missing.stdout) == (1, "")
    assert "periscope serve" in missing.stderr
    first = cli.invoke(app, ["token", "rotate", *common], env=home).stdout
    assert cli.invoke(app, ["token", "show", *common], env=home).stdout == first
    told = json.loads(cli.invoke(app, ["token", "path", "--json", *common], env=home).stdout)
    assert stat.S_IMODE(Path(told["path"]).stat().st_mode) == 0o600
    assert cli.invoke(app, ["token", "rotate", *common], env=home).stdout != first


def test_the_server_of_server_json_is_found_with_its_token(config: Path, home: dict[str, str]) -> None:
    """Wherever it listens; one that does not answer is passed over, and another address never gets the token."""
    loaded = load(config, env=home)
    folder = folder_of(home)
    folder.token.write_text("sesame\n")
    with stub_server(ALIVE) as stub:
        written(folder, stub.url)
        found = find_server(None, loaded, {})
        elsewhere = find_server(stub.url.replace("127.0.0.1", "localhost"), loaded, {})
    assert found is not None
    assert (found.url, found.api_key) == (stub.url, "sesame")
    assert elsewhere is not None
    assert elsewhere.api_key is None
    assert find_server(None, loaded, {}) is None


def test_the_end_of_the_log_is_printed(config: Path, home: dict[str, str], tmp_path: Path) -> None:
    """Of the server that runs, as server.json names it, or of the last one; and where there is none it is said."""
    common = ["--config", str(config)]
    nothing = cli.invoke(app, ["logs", *common], env=home)
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    log = tmp_path / "own.log"
    log.write_text("one\ntwo\nthree\n")
    written(folder_of(home), "http://127.0.0.1:1", log)
    assert cli.invoke(app, ["logs", "-n", "2", *common], env=home).stdout == "two\nthree\n"
    told = json.loads(cli.invoke(app, ["logs", "--json", *common], env=home).stdout)
    assert (told["source"], told["lines"]) == (str(log), ["one", "two", "three"])
    assert cli.invoke(app, ["logs", "--json", "-f", *common], env=home).exit_code == 2


def test_a_server_without_a_file_is_asked_for_its_log(running: ServeProcess, short_config: Path) -> None:
    """Also one on another machine, which is named; new lines follow."""
    common = ["--url", running.url, "--config", str(short_config)]
    told = json.loads(cli.invoke(app, ["logs", "--json", "-n", "2000", *common]).stdout)
    assert told["source"] == running.url
    assert any("model tiny: ready" in line for line in told["lines"])
    assert len(cli.invoke(app, ["logs", "-n", "1", *common]).stdout.splitlines()) == 1
    with CommandProcess("logs", "-f", "-n", "1", *common) as following:
        following.wait_for(r"\n")
        for verb, seen in (("unload", "unloaded"), ("load", r"ready after")):
            assert cli.invoke(app, [verb, "tiny", *common]).exit_code == 0
            following.wait_for(rf"(?s)\n.*model tiny: {seen}")
