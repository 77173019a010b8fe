"""The client side: finding a server, and its errors as those of a command."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from periscope.cli.address import Address
from periscope.cli.client import Server, find_server, is_periscope
from periscope.cli.exits import CommandFailed, ExitCode, code_of
from periscope.config import Config, load
from periscope.core import OutputEvent
from periscope.errors import (
    AuthenticationFailed,
    ImageInvalid,
    ModelNotFound,
    PeriscopeError,
    RemoteAnswerBroken,
    RemoteRefused,
    RemoteUnreachable,
    ServerBusy,
)
from tests.cli.process import ServeProcess
from tests.cli.stub import stub_server


@pytest.fixture
def config(tmp_path: Path) -> Config:
    file = tmp_path / "models.yaml"
    file.write_text("server: {port: 1, api_key: secret}\nmodels:\n  - {name: m, hf_id: a/b}\n")
    return load(file, env={"PERISCOPE_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("model_not_found", ModelNotFound),
        ("invalid_api_key", AuthenticationFailed),
        ("invalid_image", ImageInvalid),
        ("server_busy", ServerBusy),
        ("engine_closed", RemoteRefused),
    ],
)
def test_codes_become_the_errors_they_came_from(code: str, kind: type[PeriscopeError]) -> None:
    """So a command ends the same way with and without a server, and one busy moment spoils one picture alone."""
    failure = json.dumps({"error": {"message": "It is so.", "code": code}})
    with stub_server(b"", f"data: {failure}\n\n".encode()) as stub, pytest.raises(kind, match=r"It is so\."):
        asyncio.run(read(Server(stub.url, None)))


def test_a_stream_that_breaks_off_is_a_failure_with_a_reason() -> None:
    """One sentence that names the server."""
    chunk = json.dumps({"choices": [{"delta": {"content": "It is"}, "finish_reason": None}]})
    with stub_server(b"", f"data: {chunk}\n\n".encode()) as stub:
        with pytest.raises(RemoteAnswerBroken, match="before it was complete") as broken:
            asyncio.run(read(Server(stub.url, None)))
        assert stub.url in broken.value.message


def test_a_server_that_has_gone_is_exit_code_3() -> None:
    """Between the look for it and the question."""
    with pytest.raises(RemoteUnreachable) as gone:
        asyncio.run(read(Server("http://127.0.0.1:1", None)))
    assert code_of(gone.value) is ExitCode.NOT_RUNNING


async def read(server: Server) -> list[OutputEvent]:
    return [event async for event in server.chat({"messages": []})]


@pytest.mark.parametrize("body", [b"hello", b'{"status": "ok"}', b'{"status": "alive", "name": "other"}', b"[1]"])
def test_another_program_is_not_taken_for_a_periscope(body: bytes) -> None:
    """Whatever else listens on the port gets no picture and no key."""
    with stub_server(body) as stub:
        assert not is_periscope(Address(stub.url))


def test_a_running_server_is_found_by_url_and_by_environment(running: ServeProcess, config: Config) -> None:
    """`--url` wins over PERISCOPE_URL, with or without /v1; the configured key goes along."""
    by_url = find_server(f"{running.url}/v1/", config, {"PERISCOPE_URL": "http://127.0.0.1:1"})
    by_environment = find_server(None, config, {"PERISCOPE_URL": running.url})
    assert by_url == by_environment
    assert by_url is not None
    assert (by_url.url, by_url.api_key) == (running.url, "secret")
    assert "secret" not in repr(by_url)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_address_without_a_scheme_is_read_as_http(running: ServeProcess, config: Config, host: str) -> None:
    """As people write it, by `--url` and by PERISCOPE_URL."""
    address = f"{host}:{running.url.rpartition(':')[2]}"
    for found in (find_server(address, config, {}), find_server(None, config, {"PERISCOPE_URL": f"{address}/v1"})):
        assert found is not None
        assert found.url == f"http://{address}"


def test_nobody_at_the_configured_port_is_no_error(config: Config) -> None:
    """Then the command loads its own model."""
    assert find_server(None, config, {}) is None


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "127.0.0.1:1", "http://", "nonsense"])
def test_a_server_asked_for_by_name_must_run(config: Config, url: str) -> None:
    """Exit code 3 instead of silently loading a model here."""
    with pytest.raises(CommandFailed, match="periscope serve") as failed:
        find_server(url, config, {})
    assert failed.value.code is ExitCode.NOT_RUNNING
