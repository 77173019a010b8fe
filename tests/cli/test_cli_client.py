"""The client side: finding a server, and reading its streams as core events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from periscope.cli.client import ChunkDecoder, find_server, is_periscope, said_instead
from periscope.cli.exits import CommandFailed, ExitCode
from periscope.config import Config, load
from periscope.core import (
    Finished,
    FinishReason,
    JSONObject,
    ReasoningDelta,
    TextDelta,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import AuthenticationFailed, ModelNotFound, PeriscopeError
from tests.cli.process import ServeProcess
from tests.cli.stub import stub_server

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "models.yaml"
    file.write_text("server: {port: 1, api_key: secret}\nmodels:\n  - {name: m, hf_id: a/b}\n")
    return load(file, env={})


def chunk(delta: JSONObject | None = None, *, finish: str | None = None, **more: object) -> str:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return json.dumps({"choices": choices, **more})


def test_a_stream_is_read_as_core_events() -> None:
    """Waiting, reasoning, text and the end come out as the service itself would have yielded them."""
    decoder = ChunkDecoder()
    lines = [
        chunk({"role": "assistant", "content": ""}),
        chunk({}, periscope={"status": "captioning"}),
        chunk({"reasoning_content": "hm"}),
        chunk({"content": "Re"}),
        chunk({"content": "d."}),
        chunk({}, finish="stop", periscope={"vision": {"num_images": 1, "num_cache_hits": 1}}),
        chunk(usage=USAGE),
        "[DONE]",
    ]
    assert [event for line in lines for event in decoder.feed(line)] == [
        Waiting(WaitStatus.CAPTIONING),
        ReasoningDelta("hm"),
        TextDelta("Re"),
        TextDelta("d."),
        Finished(FinishReason.STOP, Usage(7, 2, 3), VisionUsage(num_images=1, num_cache_hits=1)),
    ]
    assert decoder.is_finished


def test_a_status_of_a_later_server_is_passed_over() -> None:
    """A wait state that this client does not know is no error."""
    assert ChunkDecoder().feed(chunk({}, periscope={"status": "dreaming", "position": 3})) == []


def test_an_error_in_the_stream_is_raised() -> None:
    """What went wrong after the first token reaches the person."""
    with pytest.raises(PeriscopeError, match="the model is gone"):
        ChunkDecoder().feed(json.dumps({"error": {"message": "the model is gone", "code": "engine_closed"}}))


@pytest.mark.parametrize(
    ("code", "kind"), [("model_not_found", ModelNotFound), ("invalid_api_key", AuthenticationFailed)]
)
def test_codes_become_the_errors_they_came_from(code: str, kind: type[PeriscopeError]) -> None:
    """So the exit code is the same with and without a server."""
    body = json.dumps({"error": {"message": "no", "code": code}}).encode()
    assert isinstance(said_instead(400, body), kind)


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"error": "no"}', b'{"detail": 1}'])
def test_an_answer_that_is_not_ours_is_still_a_sentence(body: bytes) -> None:
    """A proxy's page in between does not end in a traceback."""
    assert said_instead(502, body).message == "The server answered with status 502."


@pytest.mark.parametrize("body", [b"hello", b'{"status": "ok"}', b'{"status": "alive", "name": "other"}', b"[1]"])
def test_another_program_is_not_taken_for_a_periscope(body: bytes) -> None:
    """Whatever else listens on the port gets no picture and no key."""
    with stub_server(body) as stub:
        assert not is_periscope(stub.url)


def test_a_running_server_is_found_by_url_and_by_environment(running: ServeProcess, config: Config) -> None:
    """`--url` wins over PERISCOPE_URL, with or without /v1; the configured key goes along."""
    by_url = find_server(f"{running.url}/v1/", config, {"PERISCOPE_URL": "http://127.0.0.1:1"})
    by_environment = find_server(None, config, {"PERISCOPE_URL": running.url})
    assert by_url == by_environment
    assert by_url is not None
    assert (by_url.url, by_url.api_key) == (running.url, "secret")
    assert "secret" not in repr(by_url)


def test_nobody_at_the_configured_port_is_no_error(config: Config) -> None:
    """Then the command loads its own model."""
    assert find_server(None, config, {}) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://", "nonsense"])
def test_a_server_asked_for_by_name_must_run(config: Config, url: str) -> None:
    """Exit code 3 instead of silently loading a model here."""
    with pytest.raises(CommandFailed, match="periscope serve") as failed:
        find_server(url, config, {})
    assert failed.value.code is ExitCode.NOT_RUNNING
