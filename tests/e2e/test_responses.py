"""OpenAI's Responses API on a real server: the official SDK, and requests as Codex writes them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, Literal

import httpx
import openai
import pytest
from pydantic import BaseModel

from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, data_url, square

QUESTION = "What can you do?"
WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture
def sdk(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def image_part(image: Any) -> dict[str, Any]:
    return {"type": "input_image", "image_url": data_url(image), "detail": "auto"}


def user(*parts: Any) -> dict[str, Any]:
    content = [{"type": "input_text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"type": "message", "role": "user", "content": content}


def cached(response: Any) -> int:
    return int(response.usage.input_tokens_details.cached_tokens)


def test_a_stream_is_the_whole_response(sdk: openai.OpenAI) -> None:
    """The same words and counts; cut off, it is incomplete."""
    whole = sdk.responses.create(model="demo", input=QUESTION, temperature=0)
    with sdk.responses.stream(model="demo", input=QUESTION, temperature=0) as stream:
        streamed = stream.get_final_response()
    assert whole.output_text
    assert streamed.output_text == whole.output_text
    assert (streamed.status, whole.status) == ("completed", "completed")
    assert streamed.usage is not None
    assert whole.usage is not None
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 0
    cut = sdk.responses.create(model="demo", input=QUESTION, temperature=0, max_output_tokens=3)
    assert whole.output_text.startswith(cut.output_text)
    assert (cut.status, cut.incomplete_details and cut.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize("is_stored", [True, False], ids=["by id", "resent"])
def test_a_conversation_about_pictures_computes_only_what_is_new(sdk: openai.OpenAI, *, is_stored: bool) -> None:
    """Whether the client goes on from a response by its id or sends all items again: the prompt has one beginning."""
    turns = [
        user(image_part(circle("red", 150 if is_stored else 151)), "What colour is the circle?"),
        user("How many shapes are there?"),
        user("And here?", image_part(square("blue", 150 if is_stored else 151))),
        user("Which was the first?"),
    ]
    items: list[Any] = []
    previous: Any = None
    told = []
    for turn in turns:
        items.append(turn)
        asked: Any = {"previous_response_id": previous, "input": [turn]} if is_stored else {"input": items}
        response = sdk.responses.create(model="demo", temperature=0, max_output_tokens=20, store=is_stored, **asked)
        items += [item.to_dict() for item in response.output]
        previous = response.id
        told.append(response)
    assert "red" in told[0].output_text.lower()
    for before, after in itertools.pairwise(told):
        assert before.usage is not None
        # What the template puts around the next message is new, too.
        assert cached(after) >= before.usage.total_tokens - 8
    vision = (told[-1].model_extra or {})["periscope"]["vision"]
    assert (vision["num_images"], vision["num_cache_hits"], vision["num_failed"]) == (2, 2, 0)


def test_a_stored_response_is_read_listed_and_deleted(sdk: openai.OpenAI) -> None:
    """With the items that the model was given, pictures included."""
    shown: Any = user(image_part(circle("green")), "What is it?")
    first = sdk.responses.create(model="demo", input=[shown], max_output_tokens=12)
    second = sdk.responses.create(model="demo", input="And now?", previous_response_id=first.id, max_output_tokens=12)
    assert sdk.responses.retrieve(second.id).output == second.output
    items = list(sdk.responses.input_items.list(second.id, order="asc"))
    assert [getattr(item, "role", None) for item in items] == ["user", "assistant", "user"]
    assert items[0].to_dict()["content"] == shown["content"]
    count = sdk.responses.input_tokens.count(model="demo", input="And now?", previous_response_id=first.id)
    assert second.usage is not None
    assert count.input_tokens == second.usage.input_tokens
    sdk.responses.delete(second.id)
    with pytest.raises(openai.NotFoundError, match=second.id):
        sdk.responses.retrieve(second.id)


@pytest.mark.parametrize("asked", [{}, {"top_logprobs": 1}], ids=["plain", "with logprobs"])
@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "streaming"])
def test_a_forced_call_goes_to_the_tool_and_its_result_back(sdk: openai.OpenAI, asked: Any, *, is_stream: bool) -> None:
    """The round that agents make: a call with arguments that fit, a result with a picture, and an answer to it."""
    asked = asked | {"model": "demo", "tools": [WEATHER], "max_output_tokens": 200}
    forced = asked | {"input": QUESTION, "tool_choice": {"type": "function", "name": "get_weather"}}
    if is_stream:
        with sdk.responses.stream(**forced) as events:
            response: Any = events.get_final_response()
    else:
        response = sdk.responses.create(**forced)
    (call,) = response.output
    assert (call.type, call.name, response.status) == ("function_call", "get_weather", "completed")
    shown = [{"type": "input_text", "text": "From the window:"}, image_part(circle("red"))]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": shown}
    answer = sdk.responses.create(**asked, input=[result], previous_response_id=response.id, tool_choice="none")
    assert answer.output_text
    assert (answer.model_extra or {})["periscope"]["vision"]["num_images"] == 1


class Colour(BaseModel):
    colour: Literal["red", "blue"]


def test_an_answer_fits_the_schema_that_was_asked_for(sdk: openai.OpenAI) -> None:
    """`text.format` holds whatever the model would rather write."""
    parsed = sdk.responses.parse(model="demo", input=QUESTION, text_format=Colour, max_output_tokens=60)
    assert parsed.output_parsed is not None


def test_a_custom_tool_gets_its_text(sdk: openai.OpenAI) -> None:
    """Its call has an `input`, streamed or not, and comes back in the next turn."""
    tool: Any = {"type": "custom", "name": "run", "description": "Runs code.", "format": {"type": "text"}}
    asked: Any = {"model": "demo", "tools": [tool], "max_output_tokens": 120}
    forced = asked | {"input": QUESTION, "tool_choice": {"type": "custom", "name": "run"}}
    response: Any = sdk.responses.create(**forced)
    (call,) = response.output
    assert (call.type, call.name) == ("custom_tool_call", "run")
    with sdk.responses.stream(**forced) as stream:
        assert stream.get_final_response().output[0].to_dict()["input"] == call.input
    done: Any = {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "42"}
    assert sdk.responses.create(**asked, input=[done], previous_response_id=response.id, tool_choice="none").output_text


CODEX_TOOLS: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "shell",
        "description": "Runs a command.",
        "strict": False,
        "parameters": {"type": "object", "properties": {"command": {"type": "array", "items": {"type": "string"}}}},
    },
    {
        "type": "custom",
        "name": "apply_patch",
        "format": {"type": "grammar", "syntax": "lark", "definition": "start: /.+/"},
    },
    {"type": "web_search", "external_web_access": False},
    {"type": "image_generation", "output_format": "png"},
    {
        "type": "namespace",
        "name": "mcp__files__",
        "description": "Files.",
        "tools": [{"type": "function", "name": "read", "parameters": {"type": "object", "properties": {}}}],
    },
]


def codex_body(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "model": "demo",
        "instructions": "You are Codex.",
        "input": items,
        "tools": CODEX_TOOLS,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"effort": "medium", "summary": "auto"},
        "store": False,
        "stream": True,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "0190-session",
        "text": {"verbosity": "low"},
        "service_tier": "auto",
        "client_metadata": {"session_id": "0190"},
        "max_output_tokens": 8,  # Codex sends none: this keeps the test short
    }


def test_a_session_of_codex_goes_on_for_thirty_turns(client: httpx.Client) -> None:
    """With pictures in tool results, hosted tools, groups of tools and calls of OpenAI's own tools in the history."""
    items: list[dict[str, Any]] = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        user("<environment_context>none</environment_context>"),
        user("Look at the pictures."),
    ]
    known = 0
    for number in range(30):
        reply = client.post("/v1/responses", json=codex_body(items), headers={"session_id": "0190"})
        assert reply.status_code == 200, reply.text
        *_, last = reply.text.strip().split("\n\n")
        name, _, data = last.partition("\n")
        assert name in ("event: response.completed", "event: response.incomplete")
        response = httpx.Response(200, content=data.removeprefix("data: ")).json()["response"]
        usage = response["usage"]
        assert usage["input_tokens_details"]["cached_tokens"] >= known
        known = usage["input_tokens"] - 8
        call = {"type": "function_call", "call_id": f"call_{number}", "name": "view", "arguments": "{}"}
        shown: Any = [image_part(circle("red") if number % 2 else square("blue"))] if number < 4 else "Done."
        items += [{key: value for key, value in item.items() if key != "id"} for item in response["output"]]
        if number == 4:
            action = {"type": "exec", "command": ["ls"], "env": {}}
            items.append({"type": "local_shell_call", "call_id": "call_ls", "status": "completed", "action": action})
            items.append({"type": "local_shell_call_output", "id": "call_ls", "output": "a.txt"})
            items.append({"type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "x"}})
            items.append({"type": "ghost_snapshot", "ghost_commit": {"id": "1"}})
        items += [
            call | ({"name": "read", "namespace": "mcp__files__"} if number % 3 == 0 else {}),
            {"type": "function_call_output", "call_id": call["call_id"], "output": shown},
        ]
