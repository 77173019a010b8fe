"""A model that dies again and again ends the process, so that launchd starts a new one."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import httpx

from periscope.cli.exits import ExitCode
from tests.e2e.conftest import start_server

#: `periscope` whose backend breaks on whatever is longer than what a load tries out.
PROGRAM = """
from mlx_lm.models import qwen3
forward = qwen3.Model.__call__
def breaking(self, inputs, *args, **kwargs):
    if inputs.shape[-1] > 1:
        raise RuntimeError("[METAL] Command buffer execution failed: Insufficient Memory")
    return forward(self, inputs, *args, **kwargs)
qwen3.Model.__call__ = breaking
from periscope.cli import main
main()
"""
HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


def test_a_model_that_keeps_dying_ends_the_process(tiny_text_model: Path, tmp_path: Path) -> None:
    """Each request gets a 5xx with a reason; the model comes back twice; after its third death the status is not 0."""
    config, log = tmp_path / "models.yaml", tmp_path / "log"
    config.write_text(f"models:\n  - {{name: m, local_path: {tiny_text_model}, preload: true}}\n")
    server = start_server(config, log=log, program=(sys.executable, "-c", PROGRAM))
    answers: list[httpx.Response] = []
    states = ["ready"]
    with httpx.Client(base_url=server.url, timeout=60) as client, client.stream("GET", "/api/events") as events:
        answers += [client.post("/v1/chat/completions", json=HELLO) for _ in range(3)]
        for line in events.iter_lines():
            data = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
            if "to" in data:
                states.append(data["to"])
                if data["to"] == "ready":
                    answers += [client.post("/v1/chat/completions", json=HELLO) for _ in range(3)]
    assert server.process.wait(60) == ExitCode.FAILURE
    server.reading.join(60)
    assert states == ["ready", *["failed", "loading", "ready"] * 2, "failed"]
    assert [answer.status_code for answer in answers] == [500] * 9
    assert all("RuntimeError" in answer.json()["error"]["message"] for answer in answers)
    assert "model m has died again and again" in log.read_text()
