"""Pictures described by other servers: mlx-vlm's own with the demo captioner, and a second Periscope."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from periscope.demo import EMBEDDED_MODELS
from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, user

PATIENCE_S = 120.0
MODEL = str(EMBEDDED_MODELS["embedded:captioner"])
CONFIG = """\
models:
  - name: marking
    local_path: embedded:text
    preload: true
    capabilities: {{vision_mode: proxy, vision_proxy: {{model: eyes}}}}
  - name: refusing
    local_path: embedded:text
    capabilities: {{vision_mode: proxy, vision_proxy: {{model: eyes, on_error: error}}}}
  - name: second-hand
    local_path: embedded:text
    capabilities:
      vision_mode: proxy
      vision_proxy: {{model: periscope, prompt_template: 'What colour is the circle?'}}
  - name: eyes
    remote: {{base_url: 'http://127.0.0.1:{port}/v1', model: {model}, num_retries: 1}}
  - name: periscope
    remote: {{base_url: '{periscope}/v1', model: demo, stream: true}}
"""


class Eyes:
    """Owns mlx-vlm's server: not there at first, then started, then killed."""

    def __init__(self, log: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlx_vlm.server", "--host", "127.0.0.1", "--port", str(self.port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen([*command, "--model", MODEL], stdout=log, stderr=log)  # noqa: S603

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)


@pytest.fixture(scope="module")
def eyes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Eyes]:
    """It is gone in the end, whatever happened."""
    found = Eyes(tmp_path_factory.mktemp("eyes") / "log")
    yield found
    found.kill()


@pytest.fixture(scope="module")
def beside(server: RunningServer, eyes: Eyes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A Periscope whose captioners are elsewhere: `eyes`, which is not there yet, and the Periscope of all tests."""
    folder = tmp_path_factory.mktemp("remote")
    (folder / "models.yaml").write_text(CONFIG.format(port=eyes.port, model=MODEL, periscope=server.url))
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    assert running.stop() == 0


def ask(server: RunningServer, model: str, colour: str | None) -> httpx.Response:
    seen = [] if colour is None else [picture(circle(colour, 200))]
    body = {"model": model, "messages": [user(*seen, "What colour is the circle?")], "temperature": 0}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=PATIENCE_S)


def answer_of(reply: httpx.Response) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def vision_of(reply: httpx.Response) -> dict[str, Any]:
    return dict(reply.json()["periscope"]["vision"])


def health(server: RunningServer) -> dict[str, Any]:
    return dict(httpx.get(f"{server.url}/health", timeout=PATIENCE_S).json())


def test_while_the_other_server_is_away_only_pictures_suffer(beside: RunningServer, eyes: Eyes) -> None:
    """By setting a marker or a 503; text is answered; health names server, reason and fix, and is still ready."""
    assert answer_of(ask(beside, "marking", None))
    marked, refused = ask(beside, "marking", "red"), ask(beside, "refusing", "red")
    assert (marked.status_code, vision_of(marked)["num_failed"]) == (200, 1)
    assert refused.status_code == 503
    assert "could not be described: the captioner is not available" in refused.json()["error"]["message"]
    told = health(beside)
    assert told["status"] == "degraded"
    assert f"eyes: No server answers at http://127.0.0.1:{eyes.port}/v1 (connection refused)" in str(told)
    assert httpx.get(f"{beside.url}/readyz", timeout=PATIENCE_S).status_code == 200


def test_once_it_is_there_pictures_are_described_without_a_restart(beside: RunningServer, eyes: Eyes) -> None:
    """mlx-vlm's server captions with the demo captioner; each picture once; the state is ready again by itself."""
    eyes.start()
    while vision_of(reply := ask(beside, "marking", "red"))["num_failed"]:
        assert reply.status_code == 200
    assert "red" in answer_of(reply)
    assert vision_of(reply)["num_caption_tokens"] > 0
    again = ask(beside, "refusing", "red")
    assert vision_of(again)["num_cache_hits"] == 1
    assert health(beside)["status"] == "ready"


def test_killed_it_costs_the_pictures_that_are_new(beside: RunningServer, eyes: Eyes) -> None:
    """What was described stays described, and health says why the rest is not."""
    eyes.kill()
    assert vision_of(ask(beside, "marking", "red"))["num_cache_hits"] == 1
    assert vision_of(ask(beside, "marking", "blue"))["num_failed"] == 1
    while health(beside)["status"] != "degraded":
        pass


def test_a_second_periscope_describes_pictures(beside: RunningServer) -> None:
    """Asked as an OpenAI-compatible server, it answers through eyes of its own, as a stream."""
    reply = ask(beside, "second-hand", "green")
    assert vision_of(reply)["num_failed"] == 0
    assert "green" in answer_of(reply)
