"""`launchd/APP.md`: its Python client works against a real server, and what it says of the wire is so."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import httpx
import pytest

from periscope.api.status_wire import encode_event
from periscope.core import ModelState, WaitStatus
from periscope.host import MemoryPressure, ThermalState
from periscope.hub.jobs import DownloadState
from periscope.serving.health import HealthStatus
from periscope.status import DownloadStatus
from tests.cli.process import ServeProcess, new_home

APP = (Path(__file__).resolve().parents[2] / "launchd/APP.md").read_text(encoding="utf-8")
EXAMPLE = re.findall(r"```python\n(.*?)```", APP, re.DOTALL)[0]
MODELS = "models:\n  - {name: demo, local_path: 'embedded:text', preload: true}\n"


@pytest.fixture(scope="module")
def home() -> str:
    return new_home()


@pytest.fixture(scope="module")
def server(home: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServeProcess]:
    """With a state folder, so that server.json is written."""
    file = tmp_path_factory.mktemp("app") / "models.yaml"
    file.write_text(MODELS)
    with ServeProcess("--config", str(file), "--port", "0", home=home) as running:
        running.wait_until_ready()
        yield running
        assert running.terminate() == 0


def test_the_python_client_follows_a_real_server(
    server: ServeProcess, home: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It finds the server by its file and token, begins with the snapshot and sees a model go and come back."""
    monkeypatch.setenv("PERISCOPE_HOME", home)
    client: dict[str, Any] = {}
    exec(compile(EXAMPLE, "APP.md", "exec"), client)  # noqa: S102 - the example of our own page
    url, token = client["find_server"]()
    assert url == server.url
    titles = client["titles"](url, token)
    assert next(titles) == "1 models, 0 requests"
    headers = {"authorization": f"Bearer {token}"}
    for path, seen in (("unload", "0 models, 0 requests"), ("load", "1 models, 0 requests")):
        answer = httpx.post(
            f"{url}/api/models/{path}", json={"model": "demo", "wait": True}, headers=headers, timeout=60
        )
        assert answer.is_success
        while next(titles) != seen:
            pass
    titles.close()


def test_every_field_that_is_promised_is_sent(server: ServeProcess) -> None:
    """Whatever the tables of the snapshot name stands in the snapshot of a server."""
    told = httpx.get(f"{server.url}/api/status").json()
    section = APP.split("## The snapshot")[1].split("## The events")[0]
    names = {name: told[name] for name in ("server", "memory", "host")} | {"models[]": told["models"][0]}
    names |= {"downloads[]": {each.name for each in fields(DownloadStatus)}}
    for row in section.splitlines():
        cells = [cell.strip() for cell in row.split("|")]
        if len(cells) > 3 and cells[1].strip("`") in names:
            for name in re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cells[2])):
                assert name in names[cells[1].strip("`")], name
    for name in re.findall(r"^\| `server\.(\w+)`", section, re.MULTILINE):
        assert name in told["server"]
    assert "schema_version" in told


def test_every_event_is_told() -> None:
    """One that is added has to be explained."""
    section = APP.split("## The events")[1].split("## The commands")[0]
    names = set(re.findall(r'name, data = "([a-z.]+)"', inspect.getsource(encode_event)))
    assert len(names) > 5
    assert names == set(re.findall(r"`([a-z]+(?:\.[a-z]+)?)`(?=[^|]*\|[^|]+\|$)", section, re.MULTILINE))


@pytest.mark.parametrize(
    ("row", "values"),
    [
        ("server.state", HealthStatus),
        ("models[].state", ModelState),
        ("requests[]", WaitStatus),
        ("downloads[]", DownloadState),
        ("host", MemoryPressure),
        ("host", ThermalState),
    ],
)
def test_every_state_is_told(row: str, values: Any) -> None:
    """A state that is added has to be explained to those who write apps."""
    (line,) = (line for line in APP.splitlines() if line.startswith(f"| `{row}`"))
    assert all(f"`{value}`" in line for value in values)


def test_the_examples_are_as_short_as_they_are_said_to_be() -> None:
    """Forty lines of Python and some sixty of Swift."""
    swift = re.findall(r"```swift\n(.*?)```", APP, re.DOTALL)[0]
    assert len([line for line in EXAMPLE.splitlines() if line.strip()]) <= 40
    assert len([line for line in swift.splitlines() if line.strip()]) <= 66
    assert json.dumps(EXAMPLE).isascii()
