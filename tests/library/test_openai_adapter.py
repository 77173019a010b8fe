"""OpenAIAdapter: what the SDK's `create` takes and gives, as the server does it; over a Periscope and a bare engine."""

from __future__ import annotations

import subprocess
import sys
from contextlib import aclosing
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from periscope import ChatCompletionError, InferenceEngine, OpenAIAdapter, Periscope
from periscope.api import ApiSettings, create_app
from periscope.config import Config
from periscope.demo import EMBEDDED_MODELS
from periscope.errors import ImageRejected
from tests.api.driving import in_loop
from tests.api.fake_control import FakeControl
from tests.e2e import drawing

PICTURE: Any = {
    "model": "demo",
    "messages": [drawing.user(drawing.picture(drawing.circle("red")), "What colour is it?")],
}
SEVEN = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "seven", "parameters": SEVEN}}
HELLO = {"messages": [{"role": "user", "content": "Hello!"}]}
ANSWERED: list[dict[str, Any]] = [
    PICTURE,
    HELLO | {"n": 2, "seed": 1, "temperature": 1.0, "max_tokens": 5},
    HELLO | {"logprobs": True, "top_logprobs": 2, "max_completion_tokens": 3},
    HELLO | {"tools": [TOOL], "tool_choice": "required"},
    HELLO | {"tools": [{"type": "custom", "custom": {"name": "note"}}], "tool_choice": "required", "max_tokens": 40},
    HELLO | {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": SEVEN}}},
]
REFUSED: list[dict[str, Any]] = [
    {},
    {"messages": []},
    {"messages": 7},
    HELLO | {"model": "gpt-9"},
    HELLO | {"temperature": 9},
    HELLO | {"max_completion_tokens": 0},
    HELLO | {"audio": {"voice": "x"}, "modalities": ["audio"]},
    HELLO | {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "eight"}}},
    {"messages": [drawing.user({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}})]},
    {"messages": [drawing.user({"type": "image_url", "image_url": {"url": "file:///etc/passwd"}})]},
]


def told(completion: dict[str, Any]) -> dict[str, Any]:
    """Without what is new each time: ids, clocks, and whether a caption or a prompt was known."""
    for choice in completion["choices"]:
        for call in choice["message"].get("tool_calls", ()):
            del call["id"]
    kept = {name: completion[name] for name in ("object", "model", "choices")}
    return kept | {"completion_tokens": completion["usage"]["completion_tokens"]}


def test_it_answers_and_refuses_as_the_server_does(demo_config: Config) -> None:
    """The same bodies give the same completions and the same error objects."""

    @in_loop
    async def run() -> None:
        async with Periscope(demo_config) as periscope:
            adapter = OpenAIAdapter(periscope)
            app = create_app(periscope.runtime.service, FakeControl(), ApiSettings())
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                for body in ANSWERED:
                    ours = await adapter.chat_completion(**body)
                    theirs = await http.post("/v1/chat/completions", json=body)
                    assert isinstance(ours, ChatCompletion)
                    assert told(ours.to_dict()) == told(theirs.json())
                for body in REFUSED:
                    with pytest.raises(ChatCompletionError) as raised:
                        await adapter.chat_completion(**body)
                    theirs = await http.post("/v1/chat/completions", json=body)
                    assert (raised.value.status_code, raised.value.body) == (theirs.status_code, theirs.json()["error"])
                    with pytest.raises(ChatCompletionError) as again:
                        await anext(adapter.chat_completion_stream(**body))
                    assert again.value.body == raised.value.body
                    assert (again.value.code, again.value.param) == (
                        raised.value.body["code"],
                        raised.value.body["param"],
                    )

    run()


def test_streams_are_the_sdks_chunks(demo_config: Config) -> None:
    """With a role first, usage last if it is asked for, and pictures; left alone they leave nothing behind."""

    @in_loop
    async def run() -> None:
        async with Periscope(demo_config) as periscope:
            adapter = OpenAIAdapter(periscope)
            streamed = adapter.chat_completion_stream(**PICTURE, stream=True, stream_options={"include_usage": True})
            chunks = [chunk async for chunk in streamed]
            assert all(isinstance(chunk, ChatCompletionChunk) for chunk in chunks)
            deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
            assert deltas[0].role == "assistant"
            assert "".join(delta.content or "" for delta in deltas) == "The circle is red."
            assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
            async with aclosing(adapter.chat_completion_stream(**HELLO, extra_body={"ignore_eos": True})) as events:
                await anext(events)
            assert periscope.runtime.control.requests() == ()
            with pytest.raises(TimeoutError):
                await adapter.chat_completion(**HELLO, max_tokens=4000, timeout=0.05, extra_body={"ignore_eos": True})
            assert periscope.runtime.control.requests() == ()
            with pytest.raises(ChatCompletionError, match="chat_completion_stream") as raised:
                await adapter.chat_completion(**HELLO, stream=True)
            assert raised.value.param == "stream"

    run()


def test_the_sdks_own_objects_are_taken() -> None:
    """Messages of an answer, generators, `omit` and `NOT_GIVEN`; a bare engine answers by whatever name."""

    @in_loop
    async def run() -> None:
        async with await InferenceEngine.load(str(EMBEDDED_MODELS["embedded:text"])) as engine:
            adapter = OpenAIAdapter(engine)
            asked = {"model": "any", "temperature": 0, "seed": openai.omit, "stop": openai.NOT_GIVEN}
            first = await adapter.chat_completion(**HELLO, **asked)
            assert (first.model, first.choices[0].message.content) == ("any", "Hello! " + ENDING)
            more = (each for each in (*HELLO["messages"], first.choices[0].message, *HELLO["messages"]))
            second = await adapter.chat_completion(
                messages=more, extra_headers={"x": "y"}, logit_bias={5: -1}, max_tokens=4
            )
            assert second.model == engine.model_info.name
            assert first.usage is not None
            assert second.usage is not None
            assert second.usage.prompt_tokens > first.usage.prompt_tokens

    run()


ENDING = "Send me a picture of shapes or a number and ask me about it."


def test_a_bare_engine_refuses_pictures() -> None:
    """With the code of the server's error for a model without vision, and the place of the picture."""

    @in_loop
    async def run() -> None:
        async with await InferenceEngine.load(str(EMBEDDED_MODELS["embedded:text"])) as engine:
            adapter = OpenAIAdapter(engine)
            with pytest.raises(ChatCompletionError) as raised:
                await adapter.chat_completion(**PICTURE)
            error = raised.value
            assert (error.status_code, error.code) == (400, "image_input_unsupported")
            assert error.param == "messages[0].content[0]"
            assert isinstance(error.__cause__, ImageRejected)
            file = {"type": "file", "file": {"filename": "a.txt", "file_data": "data:text/plain;base64,AAAA"}}
            with pytest.raises(ChatCompletionError) as raised:
                await anext(adapter.chat_completion_stream(messages=[drawing.user(file)]))
            assert raised.value.code == "invalid_file"

    run()


def test_without_the_sdk_it_says_how_to_get_it() -> None:
    """The extra by its name; everything else works without it."""
    program = (
        "import sys; sys.modules['openai'] = None; import periscope; periscope.OpenAIAdapter(periscope.Periscope())"
    )
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True)  # noqa: S603
    assert done.returncode == 1
    assert "pip install 'mlx-periscope[openai]'" in done.stderr
