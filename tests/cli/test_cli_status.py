"""`periscope status`, `ps`, `load`, `unload` and `select`, with a running server and without one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from periscope.cli.app import app
from periscope.cli.control import progress_of
from periscope.events import ModelLoadProgress, ModelStateChanged
from tests.cli.process import ServeProcess

cli = CliRunner()


@pytest.fixture
def served(running: ServeProcess, short_config: Path) -> Iterator[list[str]]:
    """Options that lead to the shared server, whose model is in memory again afterwards."""
    options = ["--url", running.url, "--config", str(short_config)]
    yield options
    cli.invoke(app, ["select", "tiny", *options])


def periscope(*arguments: str) -> Result:
    return cli.invoke(app, list(arguments))


def test_status_tells_the_server_in_lines_and_in_json(served: list[str]) -> None:
    """A person sees address, state, memory and models; a program gets the snapshot that the server sends."""
    shown = periscope("status", *served)
    assert shown.exit_code == 0, shown.output
    rows = dict(line.split(maxsplit=1) for line in shown.stdout.splitlines())
    assert rows["server"].startswith(f"{served[1]}, version ")
    assert rows["state"] == "ready"
    assert rows["model"].startswith("tiny: ready, ")
    assert rows["requests"].startswith("0 running, 0 waiting, ")
    told = json.loads(periscope("status", "--json", *served).stdout)
    assert (told["running"], told["url"], told["status"]["schema_version"]) == (True, served[1], 1)
    assert told["status"]["models"][0]["ttl_s"] is None  # a field that the command has no use for is passed on


def test_a_model_is_unloaded_and_loaded_and_ps_sees_both(served: list[str]) -> None:
    """Each command waits until it is done and tells the model's new state; `ps` lists what is in memory."""
    unloaded = periscope("unload", "tiny", *served)
    assert (unloaded.exit_code, unloaded.stdout) == (0, "tiny: unloaded, default\n")
    empty = periscope("ps", *served)
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "periscope load MODEL" in empty.stderr
    loaded = periscope("load", "tiny", *served)
    assert loaded.stdout.startswith("tiny: ready, ")
    assert "model tiny: loading\n" in loaded.stderr
    assert periscope("ps", *served).stdout.splitlines()[1].startswith("tiny (default)  text  ready")
    resident = json.loads(periscope("ps", "--json", *served).stdout)
    assert ([model["id"] for model in resident["models"]], resident["requests"]) == (["tiny"], [])
    selected = json.loads(periscope("select", "tiny", "--no-wait", "--json", *served).stdout)
    assert (selected["verb"], selected["model"]["default"]) == ("select", True)


def test_without_waiting_it_says_what_the_server_begins(served: list[str]) -> None:
    """The state before it would read as if nothing had been asked for; a model that is ready already is told so."""
    assert periscope("load", "tiny", *served).exit_code == 0
    assert periscope("load", "tiny", "--no-wait", *served).stdout.startswith("tiny: ready, ")
    assert periscope("unload", "tiny", *served).stdout == "tiny: unloaded, default\n"
    for verb in ("load", "select"):
        assert periscope(verb, "tiny", "--no-wait", *served).stdout.startswith("tiny: being loaded")
        assert periscope("unload", "tiny", *served).exit_code == 0


def test_an_unknown_model_is_4_and_no_server_is_3(served: list[str]) -> None:
    """The server's own sentence names the models that it knows; without a server the sentence says how to start one."""
    unknown = periscope("load", "nope", *served)
    assert (unknown.exit_code, unknown.stdout) == (4, "")
    assert "tiny" in unknown.stderr
    nowhere = ["--config", served[-1]]
    for arguments in (["status"], ["ps"], ["load", "tiny"]):
        ended = periscope(*arguments, *nowhere)
        assert ended.exit_code == 3
        assert "periscope serve" in ended.stderr
    told = json.loads(periscope("status", "--json", *nowhere).stdout)
    assert told == {"schema_version": 1, "running": False, "url": None, "status": None}


def test_events_of_the_server_become_what_the_progress_display_knows() -> None:
    """State changes and progress of loads; everything else is no progress."""
    state = {"id": "m", "from": "loading", "to": "failed", "reason": "no room"}
    assert progress_of("model.state", state) == ModelStateChanged("m", "loading", "failed", "no room")
    loading = {"id": "m", "load": {"done_bytes": 1, "total_bytes": 4, "progress": 0.25}}
    assert progress_of("model.changed", loading) == ModelLoadProgress("m", 1, 4)
    assert progress_of("model.changed", {"id": "m", "load": None}) is None
    assert progress_of("request.end", {"id": "chatcmpl-1", "outcome": "finished"}) is None
