"""`/v1/embeddings`: the four shapes of `input`, both encodings, and errors that name the field."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import pytest

from periscope.core import MAX_INPUTS
from tests.api.driving import VECTOR, FakeBackend, app_over, client_of, error_of, in_loop
from tests.api.exchange import Exchange
from tests.api.gates import Gate


async def posted(body: dict[str, Any], backend: FakeBackend) -> Any:
    async with client_of(backend) as client:
        response = await client.post("/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a text", ("a text",)),
        (["one", "two"], ("one", "two")),
        ([5, 6], ((5, 6),)),
        ([[5, 6], [7]], ((5, 6), (7,))),
        (["one", [7]], ("one", (7,))),
    ],
)
@in_loop
async def test_inputs_may_have_any_shape(given: Any, inputs: tuple[Any, ...]) -> None:
    """A text or a list of token ids is one input; a list of them is several, each with a vector of its own."""
    backend = FakeBackend()
    told = await posted({"model": "e", "input": given}, backend)
    (request,) = backend.embedded
    assert (request.model, request.inputs) == ("e", inputs)
    assert [each["index"] for each in told["data"]] == list(range(len(inputs)))
    assert told["usage"] == {"prompt_tokens": 7, "total_tokens": 7}
    assert (told["object"], told["model"], told["data"][0]["object"]) == ("list", "e", "embedding")


@in_loop
async def test_base64_holds_the_same_numbers() -> None:
    """Little-endian float32; as floats they are exactly those numbers."""
    backend = FakeBackend()
    floats = (await posted({"input": "a"}, backend))["data"][0]["embedding"]
    packed = (await posted({"input": "a", "encoding_format": "base64"}, backend))["data"][0]["embedding"]
    assert base64.b64decode(packed) == VECTOR == struct.pack("<3f", *floats)


@in_loop
async def test_other_fields_reach_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """Dimensions, truncation and the name of a prompt; `user` and unknown fields have no effect, with a line."""
    caplog.set_level("INFO")
    backend = FakeBackend()
    body = {"input": "a", "dimensions": 2.0, "truncate_prompt_tokens": -1, "prompt_name": "query"}
    await posted(body | {"user": "u", "priority": 3}, backend)
    (request,) = backend.embedded
    assert (request.dimensions, request.truncate_tokens, request.prompt_name) == (2, -1, "query")
    assert "accepted and not used: priority" in caplog.text


@pytest.mark.parametrize(
    ("body", "param", "told"),
    [
        ({}, "input", "must be a text, a list of texts"),
        ({"input": None}, "input", "got null"),
        ({"input": {"text": "a"}}, "input", "got an object"),
        ({"input": ""}, "input", "is empty"),
        ({"input": []}, "input", "is an empty list"),
        ({"input": ["a", ""]}, "input[1]", "is empty"),
        ({"input": [[5], []]}, "input[1]", "is empty"),
        ({"input": ["a"] * (MAX_INPUTS + 1)}, "input", f"has {MAX_INPUTS + 1} texts; at most {MAX_INPUTS}"),
        ({"input": ["a", 5]}, "input[1]", "a text or a list of token ids"),
        ({"input": [5, "a"]}, "input", 'got the string "a"'),
        ({"input": [[5, True]]}, "input[0]", "got true"),
        ({"input": [[5, 1.5]]}, "input[0]", "got"),
        ({"input": [[[5]]]}, "input[0]", "got a list"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "'float' or 'base64'"),
        ({"input": "a", "dimensions": "many"}, "dimensions", "a whole number"),
        ({"input": "a", "input_type": "query"}, "input_type", "`prompt_name`"),
        ({"input": "a", "messages": [{"role": "user", "content": "a"}]}, "messages", "into `input`"),
    ],
)
@in_loop
async def test_what_cannot_be_taken_is_named(body: dict[str, Any], param: str, told: str) -> None:
    """With the field, and what was expected."""
    backend = FakeBackend()
    async with client_of(backend) as client:
        response = await client.post("/v1/embeddings", json=body)
    error = error_of(response)
    assert (response.status_code, error["param"]) == (400, param)
    assert told in error["message"]
    assert not backend.embedded


@in_loop
async def test_the_path_is_found_without_its_version() -> None:
    """As for chats, because people leave `/v1` out of base URLs."""
    async with client_of(FakeBackend()) as client:
        assert (await client.post("/embeddings", json={"input": "a"})).status_code == 200


@in_loop
async def test_a_client_that_leaves_ends_its_request() -> None:
    """The work is cancelled and has ended when the route has."""
    backend = FakeBackend(gate := Gate())
    exchange = Exchange(app_over(backend), {"input": "a"}, path="/v1/embeddings", raw_path=b"/v1/embeddings")
    await gate.reached.wait()
    exchange.disconnect()
    await exchange.task
    assert backend.saw == [asyncio.CancelledError]


@in_loop
async def test_a_command_ends_a_request() -> None:
    """Its client is told so, with a status that no SDK tries again."""
    backend = FakeBackend(gate := Gate())
    async with client_of(backend) as client:
        asked = asyncio.create_task(client.post("/v1/embeddings", json={"input": "a"}))
        await gate.reached.wait()
        backend.tasks[0].cancel()
        response = await asked
    assert (response.status_code, error_of(response)["code"]) == (499, "request_cancelled")
