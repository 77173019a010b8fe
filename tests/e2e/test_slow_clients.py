"""Clients that stop in the middle, in either direction, on a real server with little patience: nobody else pays."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import RunningServer, start_server

#: Megabytes of answer: a client that does not read is behind after a fraction of it.
LONG = {
    "messages": [{"role": "user", "content": "Count to a thousand."}],
    "max_tokens": 3000,
    "temperature": 2,
    "seed": 3,
    "logit_bias": {"0": 1},
    "logprobs": True,
    "top_logprobs": 20,
}
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    limits = {f"PERISCOPE_SERVER__LIMITS__{name}": "0.5" for name in ("RECEIVE_TIMEOUT_S", "SEND_TIMEOUT_S")}
    running = start_server(log=tmp_path_factory.mktemp("slow") / "server.log", changes=limits)
    yield running
    assert running.stop() == 0


def connected(server: RunningServer) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(TIMEOUT_S)
    client.connect((host, int(port)))
    return client


def posted(body: bytes, length: int | None = None) -> bytes:
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length or len(body)}\r\n\r\n"
    return head.encode() + body


def requests_of(server: RunningServer) -> list[dict[str, Any]]:
    return list(httpx.get(f"{server.url}/api/requests", timeout=TIMEOUT_S).json()["requests"])


def test_a_client_that_does_not_read_gives_its_place_back(impatient: RunningServer) -> None:
    """Its request is gone long before its answer would have ended, and the next one is served."""
    with connected(impatient) as client:
        client.sendall(posted(json.dumps(LONG | {"stream": True}).encode()))
        assert b"200" in client.recv(100)
        assert requests_of(impatient)
        deadline = time.monotonic() + TIMEOUT_S
        while requests_of(impatient):
            assert time.monotonic() < deadline
        with pytest.raises(OSError, match=r"reset|closed"):
            read_to_the_end(client)
    body = {"messages": [{"role": "user", "content": "Hello!"}]}
    assert httpx.post(f"{impatient.url}/v1/chat/completions", json=body, timeout=TIMEOUT_S).status_code == 200


def read_to_the_end(client: socket.socket) -> None:
    """Raises OSError if the connection was cut before the answer's end."""
    received = b""
    while data := client.recv(65_536):
        received = (received + data)[-100:]
    if not received.endswith(b"0\r\n\r\n"):
        raise OSError("closed in the middle")


@pytest.mark.parametrize(
    "half", [b"POST /v1/chat/completions HTT", posted(b'{"messages": [', 10_000)], ids=["headers", "body"]
)
def test_half_a_request_is_a_408(impatient: RunningServer, half: bytes) -> None:
    """An error like any other, and the end of the connection."""
    with connected(impatient) as client:
        client.sendall(half)
        answer = b""
        while data := client.recv(65_536):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    assert json.loads(body)["error"]["code"] == "request_timeout"
