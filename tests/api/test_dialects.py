"""Errors speak the dialect of their path, whichever layer they come from. A new dialect is one entry, one function."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from periscope import errors as e
from periscope.api import AccessKeys, ApiSettings, create_app
from periscope.api.dialects import DIALECTS, DialectTable, encoder_for
from periscope.api.errors import ErrorFacts
from periscope.core import JSONObject, TextDelta
from tests.api.driving import HELLO, FakeBackend, in_loop
from tests.api.exchange import Exchange, frames_of
from tests.api.fake_control import FakeControl
from tests.api.gates import Gate

SETTINGS = ApiSettings(max_body_bytes=2048, max_body_bytes_in_flight=2048, max_text_bytes=1024, receive_timeout_s=0.02)
HOST, KEY = (b"host", b"localhost"), (b"x-api-key", b"secret")
WELCOME = [HOST, KEY]


def french(facts: ErrorFacts) -> JSONObject:
    """A dialect that no server speaks."""
    return {"erreur": {"raison": facts.row.code, "phrase": facts.message, "champ": facts.param}}


def code_in_french(body: JSONObject) -> str:
    (told,) = body.values()
    assert set(body) == {"erreur"}
    assert set(told) == {"raison", "phrase", "champ"}
    return str(told["raison"])


def code_in_openai(body: JSONObject) -> str:
    (told,) = body.values()
    assert set(body) == {"error"}
    assert set(told) - {"retry_after"} == {"message", "type", "param", "code"}
    return str(told["code"])


def code_in_anthropic(body: JSONObject) -> str:
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert body["request_id"].startswith("req_")
    told = body["error"]
    assert {"type", "message", "code"} <= set(told) <= {"type", "message", "code", "param", "retry_after"}
    return str(told["code"])


#: The dialects that there are, each with a path of a route that reads a body, and one of the test's own.
SPOKEN: dict[str, tuple[str, DialectTable, Callable[[JSONObject], str]]] = {
    "openai": ("/v1/chat/completions", DIALECTS, code_in_openai),
    "anthropic": ("/v1/messages", DIALECTS, code_in_anthropic),
    "control": ("/api/captions", DIALECTS, code_in_openai),
    "one of the test's own": ("/v1/chat/completions", {**DIALECTS, "/v1/chat": french}, code_in_french),
    "it, under a path spelled otherwise": (
        "/v1//v1/chat/completions/",
        {**DIALECTS, "/v1/chat": french},
        code_in_french,
    ),
    "a path beside it": ("/api/captions", {**DIALECTS, "/v1/chat": french}, code_in_openai),
}


def exchange(
    path: str, dialects: DialectTable, *, body: Any = None, backend: FakeBackend | None = None, **scope: Any
) -> Exchange:
    keys = AccessKeys()
    keys.replace("secret", {})
    app = create_app(backend or FakeBackend(), FakeControl(), SETTINGS, keys=keys, dialects=dialects)
    scope = {"headers": WELCOME} | scope
    return Exchange(app, {} if body is None else body, path=path, raw_path=path.encode(), **scope)


def stalled(path: str, dialects: DialectTable) -> Exchange:
    begun = exchange(path, dialects)
    begun._incoming.get_nowait()
    begun.feed(b'{"model": ', more=True)
    return begun


def broken(path: str, dialects: DialectTable) -> Exchange:
    begun = exchange(path, dialects)
    begun._incoming.get_nowait()
    begun.feed(b"{", more=False)
    return begun


LAYERS: dict[str, tuple[Callable[[str, DialectTable], Exchange], int, str]] = {
    "Host": (lambda path, to: exchange(path, to, headers=[(b"host", b"evil.example"), KEY]), 403, "host_refused"),
    "Origin": (
        lambda path, to: exchange(path, to, headers=[*WELCOME, (b"origin", b"https://evil.example")]),
        403,
        "origin_refused",
    ),
    "key": (lambda path, to: exchange(path, to, headers=[HOST]), 401, "invalid_api_key"),
    "size of the body": (lambda path, to: exchange(path, to, body={"long": "x" * 4096}), 413, "body_too_large"),
    "coding of the body": (
        lambda path, to: exchange(path, to, headers=[*WELCOME, (b"content-encoding", b"br")]),
        415,
        "unsupported_content_encoding",
    ),
    "time limit of the body": (stalled, 408, "request_timeout"),
    "JSON": (broken, 400, "invalid_json"),
    "decoding": (lambda path, to: exchange(path, to, body={"model": 1}), 400, "invalid_value"),
    "method": (lambda path, to: exchange(path, to, method="PATCH"), 405, "method_not_allowed"),
    "no such path": (lambda path, to: exchange(f"{path}/no/such", to), 404, "route_not_found"),
}


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("layer", LAYERS)
@in_loop
async def test_each_layer_speaks_the_dialect_of_the_path(layer: str, spoken: str) -> None:
    """A client of any dialect can read why it was refused, also where it never came to a route."""
    path, dialects, code_of = SPOKEN[spoken]
    refused, status, code = LAYERS[layer]
    answer = refused(path, dialects)
    assert await answer.status() == status
    assert code_of(json.loads(await answer.rest())) == code


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize(
    ("error", "code"),
    [(e.ServerBusy("Full."), "server_busy"), (KeyError("secret"), "internal_error")],
    ids=["told on purpose", "unexpected"],
)
@in_loop
async def test_what_the_backend_raises_is_told_in_the_dialect_of_the_path(
    error: Exception, code: str, spoken: str
) -> None:
    """The exception handlers and the outermost layer look at the same table."""
    path, dialects, code_of = SPOKEN[spoken]
    body = {"images": ["data:image/png;base64,AA=="]} if path.startswith("/api") else HELLO | {"max_tokens": 9}
    answer = exchange(path, dialects, body=body, backend=FakeBackend(error))
    assert await answer.status() in {500, 503}
    assert code_of(json.loads(await answer.rest())) == code


@in_loop
async def test_a_client_of_anthropic_is_told_in_its_dialect_on_every_path() -> None:
    """Its version header says which one that is where several dialects share a path."""
    for path in ("/v1/models/no-such", "/v1/files"):
        asking = exchange(path, DIALECTS, method="GET", headers=[*WELCOME, (b"anthropic-version", b"2023-06-01")])
        assert await asking.status() == 404
        assert code_in_anthropic(json.loads(await asking.rest())) in {"model_not_found", "route_not_found"}


@in_loop
async def test_an_error_in_a_stream_is_told_in_the_dialect_of_the_path() -> None:
    """So is the end of the server while an answer runs."""
    path, dialects, code_of = SPOKEN["one of the test's own"]
    body = HELLO | {"stream": True}
    failing = exchange(path, dialects, body=body, backend=FakeBackend(TextDelta("Hi"), e.GenerationFailed("It broke.")))
    assert await failing.status() == 200
    *_, failure, _done = frames_of(await failing.rest())
    assert code_of(json.loads(failure)) == "generation_failed"

    gate = Gate()
    running = exchange(path, dialects, body=body, backend=FakeBackend(TextDelta("Hi"), gate))
    assert await running.status() == 200
    await gate.reached.wait()
    running.task.cancel()
    await asyncio.wait({running.task})
    *_, cut_off, _done = frames_of("".join([await running.frame() for _ in range(running._sent.qsize())]))
    assert code_of(json.loads(cut_off)) == "server_stopping"


@in_loop
async def test_the_end_of_the_server_before_an_answer_is_told_in_the_dialect_of_the_path() -> None:
    """The layer that writes the log answers it, outside of all routes."""
    path, dialects, code_of = SPOKEN["one of the test's own"]
    gate = Gate()
    running = exchange(path, dialects, body=HELLO, backend=FakeBackend(gate))
    await gate.reached.wait()
    running.task.cancel()
    assert await running.status() == 503
    assert code_of(json.loads(await running.frame())) == "server_stopping"
    await asyncio.wait({running.task})


@pytest.mark.parametrize(
    ("path", "is_covered"),
    [
        ("/v1/chat", True),
        ("/v1/chat/completions", True),
        ("//v1/chat/", True),
        ("/chat/completions", True),
        ("/v1/chatter", False),
        ("/v1", False),
        ("/", False),
        ("/x/v1/chat", False),
    ],
)
def test_an_entry_covers_its_path_and_those_below(path: str, *, is_covered: bool) -> None:
    """Whole pieces of the path count, as the client means them; the longest entry wins."""
    table = {**DIALECTS, "/v1/chat": french}
    assert (encoder_for(path, table) is french) == is_covered
    assert encoder_for(path, DIALECTS) is not french


def test_every_path_has_a_dialect() -> None:
    """There is an entry for the root, so that no error is without words."""
    assert "/" in DIALECTS
