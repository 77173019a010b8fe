"""`GET /openapi.json` tells the truth: every route is in it, and real answers have the shapes that it describes."""

from __future__ import annotations

import json
import re
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from periscope.api.openapi.build import openapi_document
from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    TokenLogprob,
    TokenText,
    ToolCall,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import ImageRejected, ServerBusy
from tests.api.driving import (
    FINISHED,
    HELLO,
    STREAM,
    USAGE,
    FakeBackend,
    FakeHealth,
    app_over,
    called,
    client_of,
    in_loop,
)
from tests.api.fake_control import FakeControl

DOCUMENT = openapi_document(app_over(FakeBackend()).routes, "0")
MESSAGE = {"model": "small", "max_tokens": 9, "messages": HELLO["messages"]}
TOKEN = TokenLogprob(TokenText(5, "a", b"a"), -0.5, ((TokenText(5, "a", b"a"), -0.5),))
RICH = (
    Waiting(WaitStatus.LOADING, "small", 1, 0.5, 2.5),
    ReasoningDelta("hm"),
    TextDelta("Let me look", (TOKEN,)),
    *called(0, ToolCall("call_a", "weather", '{"city":"Oslo"}')),
    Finished(FinishReason.TOOL_CALLS, USAGE, VisionUsage(num_images=1, caption_ms=20)),
)
CAPTIONS = {"images": ["data:image/png;base64,AAAA"], "files": [{"filename": "a.txt", "file_data": "QQ=="}]}
MODEL = {"model": "small"}
#: Method, route, path where that is another one, body.
ANSWERED: list[tuple[str, str, str | None, Any]] = [
    *(("GET", path, None, None) for path in ("/", "/livez", "/readyz", "/health", "/v1/models", "/api/v0/models")),
    *(("GET", path, None, None) for path in ("/api/v1/models", "/props", "/api/captions", "/api/downloads")),
    *(("GET", path, None, None) for path in ("/api/status", "/api/requests", "/api/logs", "/openapi.json")),
    ("GET", "/v1/models/{name}", "/v1/models/org/text", None),
    ("GET", "/v1/models", "/v1/models?client_version=1", None),
    ("GET", "/api/v0/models/{name}", "/api/v0/models/small", None),
    ("GET", "/api/downloads/{download_id}", "/api/downloads/dl-1", None),
    ("DELETE", "/api/captions", None, None),
    ("POST", "/v1/chat/completions", None, HELLO),
    ("POST", "/v1/chat/completions", None, HELLO | {"tools": [{"type": "custom", "custom": {"name": "weather"}}]}),
    ("POST", "/v1/completions", None, MODEL | {"prompt": "Once"}),
    ("POST", "/v1/responses", None, {"input": "Hi", "store": False}),
    ("POST", "/v1/responses/input_tokens", None, {"input": "Hi"}),
    ("POST", "/v1/messages", None, MESSAGE | {"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    ("POST", "/v1/messages/count_tokens", None, MESSAGE),
    ("POST", "/v1/embeddings", None, {"input": ["a", "b"]}),
    ("POST", "/v1/embeddings", None, {"input": "a", "encoding_format": "base64"}),
    ("POST", "/tokenize", None, {"prompt": "a"}),
    ("POST", "/tokenize", None, {"content": "a", "with_pieces": True}),
    ("POST", "/detokenize", None, {"tokens": [5]}),
    ("POST", "/api/captions", None, CAPTIONS),
    ("POST", "/api/downloads", None, {"model": "org/x"}),
    ("POST", "/api/downloads/{download_id}/pause", "/api/downloads/dl-1/pause", None),
    ("POST", "/api/requests/{request_id}/cancel", "/api/requests/r/cancel", None),
    ("POST", "/api/server/reload", None, None),
    ("POST", "/api/server/shutdown", None, None),
    *(("POST", path, None, MODEL) for path in ("/api/models/load", "/api/models/unload", "/v1/models/select")),
    ("POST", "/api/models/pin", None, MODEL),
]


def assert_described(response: httpx.Response, method: str, route: str) -> None:
    """The document has this status and this media type for the route, and the body has the shape that it says."""
    responses = DOCUMENT["paths"][route][method.lower()]["responses"]
    described = responses.get(str(response.status_code)) or responses.get(f"{response.status_code // 100}XX")
    assert described is not None, (response.status_code, response.text)
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    media_type = response.headers["content-type"].partition(";")[0]
    content = described["content"][media_type]
    if media_type == "application/json":
        validator = Draft202012Validator(content["schema"] | {"components": DOCUMENT["components"]})
        assert [error.message for error in validator.iter_errors(response.json())] == []


@pytest.mark.parametrize(("method", "route", "path", "body"), ANSWERED)
@in_loop
async def test_an_answer_has_the_shape_that_is_described(method: str, route: str, path: str | None, body: Any) -> None:
    """Of each route; answers of models with reasoning, log-probabilities, calls and pictures."""
    script = (
        RICH
        if route in {"/v1/chat/completions", "/v1/messages", "/v1/responses"}
        else (TextDelta("Hi", (TOKEN,)), FINISHED)
    )
    async with client_of(FakeBackend(*script)) as client:
        response = await client.request(method, path or route, json=body)
    assert response.status_code < 300, response.text
    assert_described(response, method, route)


@in_loop
async def test_a_kept_response_is_described() -> None:
    """It comes back, with its items, and is deleted."""
    async with client_of(FakeBackend(*RICH)) as client:
        kept = (await client.post("/v1/responses", json={"input": "Hi"})).json()["id"]
        for method, route in (
            ("GET", "/v1/responses/{response_id}"),
            ("GET", "/v1/responses/{response_id}/input_items"),
            ("POST", "/v1/responses/{response_id}/cancel"),
            ("DELETE", "/v1/responses/{response_id}"),
        ):
            response = await client.request(method, route.replace("{response_id}", kept))
            assert response.status_code == (400 if route.endswith("cancel") else 200)
            assert_described(response, method, route)


@in_loop
async def test_models_in_anthropics_shape_are_described() -> None:
    """The header decides, on the same path."""
    async with client_of(FakeBackend()) as client:
        for path in ("/v1/models", "/v1/models/small"):
            response = await client.get(path, headers={"anthropic-version": "2023-06-01"})
            assert_described(response, "GET", path.replace("small", "{name}"))


@pytest.mark.parametrize("route", ["/v1/chat/completions", "/v1/messages"])
@in_loop
async def test_errors_and_streams_have_the_shape_that_is_described(route: str) -> None:
    """Of each dialect: the client's faults, a busy server with the time to wait, and the media type of a stream."""
    for failure in (ImageRejected("No.", param="messages[0]"), ServerBusy("Full.", retry_after_s=3)):
        async with client_of(FakeBackend(failure)) as client:
            assert_described(await client.post(route, json=MESSAGE), "POST", route)
            assert_described(await client.post(route, content=b"{"), "POST", route)
    async with client_of(FakeBackend()) as client:
        response = await client.post(route, json=STREAM | MESSAGE)
        assert_described(response, "POST", route)
        assert response.headers["content-type"].startswith("text/event-stream")


@in_loop
async def test_a_server_that_is_not_ready_is_described() -> None:
    """Its 503 holds the state and the error."""
    backend = FakeBackend()
    backend.reading = FakeHealth(status="failed", is_ready=False, is_healthy=False)
    async with client_of(backend) as client:
        for path in ("/readyz", "/health"):
            response = await client.get(path)
            assert response.status_code == 503
            assert_described(response, "GET", path)


def test_the_document_is_sound() -> None:
    """All references lead somewhere, all schemas are schemas, and operations have names of their own."""
    references = set(re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(DOCUMENT)))
    assert len(references) > 50
    for reference in references:
        node = DOCUMENT
        for key in reference.split("/"):
            node = node[key]
    for schema in DOCUMENT["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    names = [each["operationId"] for operations in DOCUMENT["paths"].values() for each in operations.values()]
    assert len(names) == len(set(names))


def test_bodies_are_those_that_are_decoded() -> None:
    """A field that a wire model has, and what a validator takes beyond its type."""
    chat = DOCUMENT["components"]["schemas"]["ChatCompletionWire"]
    assert {"messages", "temperature", "guided_json", "reasoning_effort"} <= chat["properties"].keys()
    assert chat["required"] == ["messages"]
    assert {"type": "string"} in chat["properties"]["stop"]["anyOf"]
    assert DOCUMENT["components"]["schemas"]["PinCommand"]["additionalProperties"] is False


def test_examples_are_answered_bodies() -> None:
    """Each fits the schema of its body."""
    examples = 0
    for operations in DOCUMENT["paths"].values():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            if "example" in content:
                examples += 1
                Draft202012Validator(content["schema"] | {"components": DOCUMENT["components"]}).validate(
                    content["example"]
                )
    assert examples >= 8


def test_a_route_without_documentation_is_an_error() -> None:
    """So that no route is forgotten: the error names it, and what is missing."""
    app = app_over(FakeBackend(), FakeControl())

    async def forgotten(_: Request) -> Response:
        return Response()

    app.routes.append(Route("/api/forgotten", forgotten))
    with pytest.raises(LookupError, match=r"/api/forgotten.*documented"):
        openapi_document(app.routes, "0")
