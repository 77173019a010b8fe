"""`periscope key`, and a server that takes what it made."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from periscope.api.access_keys import hash_of
from periscope.cli.app import app
from tests.cli.process import TIMEOUT_S, ServeProcess, new_home, run_command

cli = CliRunner()
CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "Go on."}], "stream": True}
PICTURE = "data:image/png;base64," + "iVBORw0K" * 40
ONE = "models:\n  - {name: m, hf_id: a/b}\n"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "models.yaml"
    file.write_text(ONE)
    return file


def test_a_key_is_shown_once_with_the_lines_for_the_file(config: Path) -> None:
    """The key alone on stdout; the lines on stderr are valid, and make the name known."""
    made = cli.invoke(app, ["key", "new", "laptop", "--config", str(config)])
    assert made.exit_code == 0
    key = made.stdout.strip()
    assert re.fullmatch(r"sk-periscope-[\w-]{43}", key)
    lines = re.search(r"server:\n  api_keys:\n    - .*\n", made.stderr)
    assert lines
    assert hash_of(key) in lines[0]
    assert key not in made.stderr
    config.write_text(lines[0] + ONE)
    assert cli.invoke(app, ["key", "ls", "--config", str(config)]).stdout == "laptop\n"
    again = cli.invoke(app, ["key", "new", "laptop", "--config", str(config)])
    assert (again.exit_code, again.stdout) == (1, "")
    assert "has a key 'laptop' already" in again.stderr


def test_a_list_without_keys_says_so(tmp_path: Path) -> None:
    """With the file that was read and how to make one; nothing on stdout for a script."""
    file = tmp_path / "models.yaml"
    file.write_text(ONE)
    ended = cli.invoke(app, ["key", "ls", "--config", str(file)])
    assert (ended.exit_code, ended.stdout) == (0, "")
    assert str(file) in ended.stderr
    assert "periscope key new" in ended.stderr


def test_two_keys_are_never_the_same(config: Path) -> None:
    """They are random."""
    made = [cli.invoke(app, ["key", "new", "a", "--config", str(config), "--json"]) for _ in range(2)]
    first, second = (json.loads(each.stdout) for each in made)
    assert first["key"] != second["key"]
    assert first["hash"] == hash_of(first["key"])


@pytest.mark.parametrize("name", ["", "two words", "-x", "x" * 65])
def test_a_name_is_one_word(config: Path, name: str) -> None:
    """It stands in log lines and in models.yaml."""
    refused = cli.invoke(app, ["key", "new", "--config", str(config), "--", name])
    assert refused.exit_code == 2
    assert "is no name for a key" in refused.stderr


def test_a_server_takes_named_keys_and_lets_go_of_them(endless_config: Path, tmp_path: Path) -> None:
    """The status tells whose request runs; SIGHUP takes a key away.

    However much is logged, no line holds a key, wherever a client puts it, or more of a picture than its beginning.
    """
    file, home = tmp_path / "models.yaml", new_home()
    model = endless_config.read_text().partition("models:")[2]
    keys = {name: f"sk-periscope-{name}-{'k' * 32}" for name in ("laptop", "phone")}

    def write(*names: str) -> None:
        entries = "".join(f"    - {{name: {name}, hash: '{hash_of(keys[name])}'}}\n" for name in names)
        file.write_text(f"server:\n  port: 1\n  api_keys:\n{entries}models:{model}")

    def status(**request: Any) -> int:
        return client.get("/v1/models", **request).status_code

    write("laptop", "phone")
    laptop, phone = ({"x-api-key": key} for key in keys.values())
    with ServeProcess("--config", str(file), "--port", "0", "-vv", home=home) as server:
        server.wait_until_ready()
        with httpx.Client(base_url=server.url, timeout=TIMEOUT_S) as client:
            assert status() == 401
            with client.stream("POST", "/v1/chat/completions", json=CHAT, headers=laptop) as stream:
                lines = stream.iter_lines()
                next(lines)
                rows = client.get("/api/requests", headers=phone).json()["requests"]
                assert [row["key"] for row in rows] == ["laptop"]
                write("phone")
                server.signal(signal.SIGHUP)
                server.wait_for("the configuration was read again")
                next(lines)
            assert (status(headers=laptop), status(headers=phone)) == (401, 200)
            assert status(headers={"authorization": f"Basic {keys['laptop']}"}) == 401
            assert status(headers={"host": keys["laptop"]}) == 403
            assert status(params={"api_key": keys["laptop"]}) == 401
            assert client.get(f"/{keys['phone']}", headers=phone).status_code == 404
            assert client.post("/v1/chat/completions", json=CHAT | {"model": PICTURE}, headers=phone).status_code == 404
        told = run_command("logs", "--config", str(file), changes={"PERISCOPE_HOME": home})
        assert (told.returncode, "key=laptop" in told.stdout) == (0, True), told.stderr
        assert server.terminate() == 0
    (log,) = Path(home).rglob("server.log")
    for text in (server.output, told.stdout, log.read_text()):
        assert "k" * 32 not in text
        assert PICTURE[:80] not in text
