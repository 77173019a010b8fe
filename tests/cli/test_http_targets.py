"""Requests whose target is no path, over real sockets: a URL, `*`, and what is neither."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from periscope.cli.http_bounds import HTTPBounds
from tests.api.driving import FakeBackend, in_loop
from tests.cli.raw_http import LONG, parsed, served


async def answer_to(line: bytes, *headers: bytes, **settings: Any) -> bytes:
    """All that the server says to one request with this first line."""
    async with served(FakeBackend(), LONG, **settings) as (host, port, _):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(b"\r\n".join([line, *headers, b"connection: close", b"", b""]))
        answer = await reader.read()
        writer.close()
        return answer


async def got(url: bytes, host: bytes | None) -> tuple[int, Any]:
    """The answer to a GET of this URL with this Host header; without one it is a request of HTTP 1.0."""
    if host is None:
        return parsed(await answer_to(b"GET " + url + b" HTTP/1.0"))
    return parsed(await answer_to(b"GET " + url + b" HTTP/1.1", b"host: " + host))


@pytest.mark.parametrize(
    ("target", "host"),
    [
        (b"http://localhost:7374/v1/models", b"localhost:7374"),
        (b"HTTPS://127.0.0.1/v1/models?limit=1", b"127.0.0.1"),
        (b"http://[::1]:80/v1/models", b"[::1]"),
        (b"http://localhost/v1/models", None),
    ],
)
@in_loop
async def test_a_url_is_answered_like_its_path(target: bytes, host: bytes | None) -> None:
    """As clients write it to what they take for a proxy; those of HTTP 1.0 send no Host header beside it."""
    status, body = await got(target, host)
    assert (status, body["data"][0]["id"]) == (200, "org/text")


@in_loop
async def test_a_url_without_a_path_is_that_of_the_root() -> None:
    """The query stays one."""
    assert (await got(b"http://localhost?a=b", b"localhost"))[0] == 200


@pytest.mark.parametrize(
    ("authority", "host"),
    [
        (b"evil.example", b"evil.example"),
        (b"evil.example", b"localhost"),
        (b"localhost", b"evil.example"),
        (b"evil.example", None),
        (b"localhost@evil.example", b"localhost"),
    ],
)
@in_loop
async def test_the_host_of_a_url_is_guarded_like_the_header(authority: bytes, host: bytes | None) -> None:
    """A foreign name in either of them is refused, whatever the other says, and in the dialect of the path."""
    status, body = await got(b"http://" + authority + b"/v1/messages", host)
    assert (status, body["type"], body["error"]["code"]) == (403, "error", "host_refused")


@in_loop
async def test_a_url_needs_the_key_that_its_path_needs() -> None:
    """Only the paths that are open without a key are open so."""
    answer = await answer_to(b"GET http://localhost/v1/models HTTP/1.1", b"host: localhost", api_key="secret")
    assert parsed(answer)[0] == 401


@in_loop
async def test_options_of_the_whole_server_have_an_answer_without_a_body() -> None:
    """Without the key, too, but not under a foreign host."""
    answer = await answer_to(b"OPTIONS * HTTP/1.1", b"host: localhost", api_key="secret")
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")
    assert body == b""
    status, told = parsed(await answer_to(b"OPTIONS * HTTP/1.1", b"host: evil.example"))
    assert (status, told["error"]["code"]) == (403, "host_refused")


@pytest.mark.parametrize(
    "line",
    [
        *(b"GET v1/models", b"GET *", b"CONNECT localhost:443", b"OPTIONS *?a=b"),
        *(b"GET ftp://localhost/v1/models", b"GET http:///v1/models"),
    ],
)
@in_loop
async def test_any_other_target_is_a_400(line: bytes) -> None:
    """In the form of all errors, with what a target must be."""
    status, body = parsed(await answer_to(line + b" HTTP/1.1", b"host: localhost"))
    assert (status, body["error"]["type"], body["error"]["code"]) == (400, "invalid_request_error", "invalid_http")
    assert "a path that begins with `/`" in body["error"]["message"]


@pytest.mark.parametrize("target", [b"v1/models", b"/" + b"p" * 2048], ids=["no path", "too long"])
@in_loop
async def test_a_refusal_of_head_has_no_body(target: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """As with every answer to it; h11 takes none, so that the connection would end with an error in the log."""
    bounds = HTTPBounds(max_header_bytes=1024)
    answer = await answer_to(b"HEAD " + target + b" HTTP/1.1", b"host: localhost", bounds=bounds)
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 431 "))
    assert body == b""
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


@in_loop
async def test_the_headers_of_a_url_that_cannot_be_used_are_told_in_the_dialect_of_its_path() -> None:
    """As far as they came."""
    _, body = parsed(await answer_to(b"POST http://localhost/v1/messages HTTP/1.1", b"no colon"))
    assert (body["type"], body["error"]["code"]) == ("error", "invalid_http")
