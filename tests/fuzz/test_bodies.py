"""Whatever a body holds, it is answered or refused as the client's fault: no 5xx, no hang, nothing left behind.

`make test` sends 500 bodies, always the same; `make fuzz` sends 20,000 others each time.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from periscope.api.openapi.build import openapi_document
from tests.api.driving import FakeBackend, app_over
from tests.e2e.conftest import RunningServer, start_server
from tests.engine.embedding.checkpoints import write_model
from tests.fuzz.bodies import NOT_FUZZED, SEEDS
from tests.fuzz.mutate import broken_bodies

#: A set number asks for bodies that are drawn anew.
ASKED = os.environ.get("FUZZ_BODIES")
#: Longer than any answer within the model's context takes on a busy machine.
PATIENCE_S = 120.0
CONFIG = """
models:
- name: demo
  local_path: "embedded:text"
  preload: true
  params: {context_length: 1536, prompt_cache: 0}
  capabilities: {vision_mode: proxy, vision_proxy: {model: captioner, max_tokens: 1, reader: none}}
- {name: captioner, local_path: "embedded:captioner", preload: true}
- {name: embedder, local_path: ./embedder, params: {matryoshka: true}}
"""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server of its own, because commands to models and downloads are fuzzed, too."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "models.yaml").write_text(CONFIG)
    write_model(folder / "embedder", "bert", prompts={"query": "q: "})
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    assert running.stop() == 0


def post_routes() -> set[str]:
    paths = openapi_document(app_over(FakeBackend()).routes, "0")["paths"]
    return {path for path, methods in paths.items() if "post" in methods}


def test_every_post_route_is_fuzzed() -> None:
    """A new route needs a valid body in `bodies.py`."""
    assert set(SEEDS) | NOT_FUZZED == post_routes()


def test_the_bodies_that_fuzzing_starts_from_are_valid(fuzzed: RunningServer) -> None:
    """Otherwise all that is tried is the first check."""
    with httpx.Client(base_url=fuzzed.url, timeout=PATIENCE_S) as client:
        for path, bodies in SEEDS.items():
            for body in bodies:
                reply = client.post(path, json=body)
                is_of_nobody = "{" in path and reply.status_code == 404
                assert reply.status_code in (200, 202) or is_of_nobody or path == "/api/downloads", (path, reply.text)


def test_no_body_is_the_servers_fault(fuzzed: RunningServer) -> None:
    """Neither as a status nor as an event of a stream; an error has its dialect's shape; nothing runs on afterwards."""
    client, outcomes = httpx.Client(base_url=fuzzed.url, timeout=PATIENCE_S), Counter[str]()

    @settings(
        max_examples=int(ASKED or 500),
        derandomize=ASKED is None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def send(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(sorted(SEEDS)), label="path")
        body = data.draw(broken_bodies(SEEDS[path]), label="body")
        reply = client.post(path.format(download_id="d", request_id="r", response_id="r"), content=body)
        outcomes[f"{path} {reply.status_code}"] += 1
        assert reply.status_code < 500, reply.text
        for error in errors_of(reply):
            assert error["message"]
            assert error.get("type") not in {"server_error", "api_error", "overloaded_error"}, error
            assert error.get("code") not in {0, -32603}, error  # JSON-RPC's

    with client:
        send()
        print(*sorted(outcomes.items()), sep="\n")  # noqa: T201 - `make fuzz` shows it
        assert client.get("/api/requests").json() == {"requests": []}
        assert client.post("/v1/chat/completions", json=SEEDS["/v1/chat/completions"][0]).is_success


def errors_of(reply: httpx.Response) -> list[dict[str, Any]]:
    """The error of a refusal, or those among the events of a stream."""
    if reply.headers.get("content-type", "").startswith("text/event-stream"):
        data = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: {")]
        return [event["error"] for event in map(json.loads, data) if "error" in event]
    error = reply.json().get("error") if reply.content else None
    assert reply.is_success or error
    return [error] if isinstance(error, dict) else []
