"""A server in a process that may reach nothing but loopback: what it needs is on this disk, or it says so.

The guard is an audit hook of the interpreter: it sees every look-up of a name and every connection of Python code,
whichever library asks for it, writes it down and refuses it. HF_HUB_OFFLINE is not set: nobody is told to be quiet.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from huggingface_hub import close_session

from periscope.hub import Hub, pull
from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, user
from tests.hub.fake_hub import fake_hub

HUB = "https://huggingface.co"
GUARD = """
import runpy, sys
attempts = open(sys.argv.pop(1), "a", buffering=1)
LOCAL = {None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}
def host_of(event, args):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = args[1]
        return address[0] if isinstance(address, tuple) else None  # no tuple: a socket of this machine
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        return args[0]
def guard(event, args):
    host = host_of(event, args) if event.startswith("socket.") else None
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOCAL:
        attempts.write(f"{event} {host}\\n")
        raise PermissionError(f"{event} {host}")
sys.addaudithook(guard)
runpy.run_module("periscope", run_name="__main__")
"""
CONFIG = """\
models:
  - name: demo
    local_path: embedded:text
    preload: true
    params: {temperature: 0}
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes}}
  - name: eyes
    local_path: embedded:captioner
    preload: true
  - name: fetched
    hf_id: tiny/fetched
    params: {max_tokens: 8}
  - name: absent
    hf_id: tiny/absent
"""


@dataclass
class Fenced:
    """A guarded server, and the file with what it tried to reach."""

    server: RunningServer
    attempts: Path

    def chat(self, model: str, *parts: dict[str, object] | str) -> httpx.Response:
        body = {"model": model, "messages": [user(*parts)]}
        return httpx.post(f"{self.server.url}/v1/chat/completions", json=body, timeout=120)


def environment(folder: Path) -> dict[str, str]:
    """A machine of its own, with the hub's address as everybody has it and no proxy that would hide where to."""
    proxies = {f"{name}_proxy": "" for name in ("http", "https", "all")}
    return {
        **proxies,
        **{name.upper(): value for name, value in proxies.items()},
        "HF_ENDPOINT": HUB,
        "HF_HOME": str(folder / "hf"),
        "HF_HUB_CACHE": str(folder / "hf" / "hub"),
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
    }


@pytest.fixture(scope="module")
def fenced(tmp_path_factory: pytest.TempPathFactory, tiny_text_model: Path) -> Iterator[Fenced]:
    """One for all tests of this file, over a cache with one model."""
    folder = tmp_path_factory.mktemp("fenced")
    close_session()
    with fake_hub() as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        hub.repos["tiny/fetched"] = {file.name: file.read_bytes() for file in tiny_text_model.iterdir()}
        pull("tiny/fetched", on_progress=lambda _: None, hub=Hub(hub.url, folder / "hf" / "hub"))
        close_session()
    config, attempts = folder / "models.yaml", folder / "attempts.txt"
    config.write_text(CONFIG)
    attempts.touch()
    program = (sys.executable, "-c", GUARD, str(attempts))
    server = start_server(config, log=folder / "server.log", program=program, changes=environment(folder))
    yield Fenced(server, attempts)
    assert server.stop() == 0
    assert attempts.read_text() == ""


def test_the_guard_sees_what_would_go_out(tmp_path: Path) -> None:
    """A command that does use the network is caught by it: the other tests could fail."""
    attempts = tmp_path / "attempts.txt"
    command = [sys.executable, "-c", GUARD, str(attempts), "pull", "nobody/nothing"]
    ended = subprocess.run(  # noqa: S603 - our own program
        command, env={**os.environ, **environment(tmp_path)}, capture_output=True, text=True, timeout=120, check=False
    )
    assert ended.returncode == 1
    assert HUB.removeprefix("https://") in attempts.read_text()


def test_the_demo_pair_starts_and_answers_offline(fenced: Fenced) -> None:
    """Start, text, picture, its caption and its text: no name is looked up and nobody is connected to."""
    assert fenced.chat("demo", "Hello!").status_code == 200
    seen = fenced.chat("demo", "What colour is the circle?", picture(circle("red")))
    assert "red" in seen.json()["choices"][0]["message"]["content"]
    assert seen.json()["periscope"]["vision"]["reader_ms"] > 0
    assert fenced.attempts.read_text() == ""


def test_a_pulled_model_loads_and_answers_offline(fenced: Fenced) -> None:
    """What `pull` brought is all that serving needs, without a question to the hub."""
    for name in ("fetched", "tiny/fetched"):  # the hub id of a configured model is its name, too
        reply = fenced.chat(name, "Hello!")
        assert reply.status_code == 200, reply.text
        assert reply.json()["usage"]["completion_tokens"] > 0
    assert fenced.attempts.read_text() == ""


def test_a_model_that_is_not_configured_is_404_and_no_download(fenced: Fenced) -> None:
    """A hub id that no entry of models.yaml has is a name like any other: unknown."""
    for name in ("mlx-community/Qwen3-4B-4bit", "tiny/elsewhere"):
        reply = fenced.chat(name, "Hello!")
        assert (reply.status_code, reply.json()["error"]["code"]) == (404, "model_not_found")
    assert fenced.attempts.read_text() == ""


def test_a_configured_model_that_is_not_here_is_404_with_the_command(fenced: Fenced) -> None:
    """Not fetched on the way: the error says how to fetch it, and no client tries again by itself."""
    for name in ("absent", "tiny/absent"):
        reply = fenced.chat(name, "Hello!")
        error = reply.json()["error"]
        assert (reply.status_code, error["code"], error["param"]) == (404, "model_not_on_disk", "model")
        assert "tiny/absent is not on this disk. Fetch it with `periscope pull absent`." in error["message"]
        assert "retry-after" not in reply.headers
    assert fenced.attempts.read_text() == ""
