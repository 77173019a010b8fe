"""Anthropic's Messages API on a real server: the official SDK, and requests as Claude Code writes them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import anthropic
import httpx
import pytest
from PIL import Image

from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, square

QUESTION: Any = [{"role": "user", "content": "What can you do?"}]
WEATHER: Any = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
READ: Any = {
    "name": "Read",
    "description": "Reads a file.",
    "input_schema": {"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]},
}
CLAUDE_CODE_HEADERS = {
    "anthropic-version": "2023-06-01",
    "anthropic-beta": "claude-code-20250219,mid-conversation-system-2026-04-07,effort-2025-11-24,no-such-beta",
    "x-app": "cli",
    "user-agent": "claude-cli/2.1.263 (external, cli)",
    "x-claude-code-session-id": "8b1f",
}


@pytest.fixture
def sdk(server: RunningServer) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=server.url, api_key="x", max_retries=0, timeout=120) as client:
        yield client


def image_block(image: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def cached(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_stream_is_the_whole_message(sdk: anthropic.Anthropic) -> None:
    """The same words, the same counts, and a reason for the end."""
    asked: Any = {"model": "claude-opus-4-8", "max_tokens": 60, "messages": QUESTION}
    whole = sdk.messages.create(**asked)
    with sdk.messages.stream(**asked) as stream:
        streamed = stream.get_final_message()
    assert text_of(whole)
    assert text_of(streamed) == text_of(whole)
    assert streamed.stop_reason == whole.stop_reason == "end_turn"
    assert streamed.model == whole.model == "claude-opus-4-8"
    assert streamed.usage.output_tokens == whole.usage.output_tokens > 0


def test_the_stop_sequence_that_ended_an_answer_is_named(sdk: anthropic.Anthropic) -> None:
    """It is never part of the text."""
    asked: Any = {"model": "demo", "max_tokens": 60, "messages": QUESTION}
    words = text_of(sdk.messages.create(**asked))
    stop = words.split()[2]
    message = sdk.messages.create(**asked, stop_sequences=["no such words", stop])
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", stop)
    assert text_of(message) == words.partition(stop)[0]


def test_a_picture_is_seen_in_a_message_and_in_a_tool_s_result(sdk: anthropic.Anthropic) -> None:
    """A text model answers about it wherever a client puts it."""
    question = "What colour is the circle?"
    shown: Any = {"role": "user", "content": [image_block(circle("red")), {"type": "text", "text": question}]}
    message = sdk.messages.create(model="demo", max_tokens=30, messages=[shown])
    assert "red" in text_of(message).lower()

    read: Any = [
        {"role": "user", "content": "Read circle.png."},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}]},
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "toolu_1", "content": [image_block(circle("red"))]},
                {"type": "text", "text": question},
            ],
        },
    ]
    message = sdk.messages.create(model="demo", max_tokens=30, messages=read, tools=[READ])
    vision = (message.model_extra or {})["periscope"]["vision"]
    assert (vision["num_images"], vision["num_cache_hits"], vision["num_failed"]) == (1, 1, 0)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
def test_a_forced_call_goes_to_the_tool_and_its_result_back(sdk: anthropic.Anthropic, *, stream: bool) -> None:
    """The round that agents make: a call with arguments that fit, the tool's result, and an answer to it."""
    asked: Any = {"model": "demo", "max_tokens": 200, "tools": [WEATHER]}
    forced = asked | {"messages": QUESTION, "tool_choice": {"type": "tool", "name": "get_weather"}}
    if stream:
        with sdk.messages.stream(**forced) as events:
            message = events.get_final_message()
    else:
        message = sdk.messages.create(**forced)
    (call,) = message.content
    assert call.type == "tool_use"
    assert (call.name, set(call.input), message.stop_reason) == ("get_weather", {"city"}, "tool_use")
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": "Sunny, 21 degrees."}
    turns: Any = [*QUESTION, {"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    answer = sdk.messages.create(**asked, messages=turns, tool_choice={"type": "none"})
    assert answer.stop_reason == "end_turn"
    assert text_of(answer)


def test_an_answer_fits_the_schema_that_was_asked_for(sdk: anthropic.Anthropic) -> None:
    """`output_config.format` holds whatever the model would rather write."""
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["red", "blue"]}},
        "required": ["colour"],
        "additionalProperties": False,
    }
    message = sdk.messages.create(
        model="demo",
        max_tokens=60,
        messages=QUESTION,
        output_config={"format": {"type": "json_schema", "schema": schema}},
    )
    assert text_of(message).replace(" ", "") in {'{"colour":"red"}', '{"colour":"blue"}'}


def claude_code_body(turns: list[dict[str, Any]], *, number: int) -> dict[str, Any]:
    """One request of a session, whose billing line is another one each time."""
    return {
        "model": "claude-opus-4-8",
        "max_tokens": 24,
        "temperature": 0,
        "stream": False,
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.263.{number}; cch={number}{number};"},
            cached("You are Claude Code."),
            cached("Be brief."),
        ],
        "messages": turns,
        "tools": [READ, {"type": "web_search_20250305", "name": "web_search"}],
        "metadata": {"user_id": "user_1_session_2"},
        "thinking": {"type": "adaptive"},
        "output_config": {"effort": "medium"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }


def test_a_session_of_claude_code_computes_only_what_is_new(client: httpx.Client) -> None:
    """Its billing line, its reminders and its betas leave the beginning of the prompt alone, pictures included."""
    turns: list[dict[str, Any]] = [
        {"role": "user", "content": [image_block(circle("red")), cached("What colour is the circle?")]},
        {"role": "system", "content": "Available agent types: none."},
    ]
    known = 0
    for number in range(8):
        if number == 3:
            turns.append({"role": "system", "content": "The user opened circle.png."})
        body = claude_code_body(turns, number=number)
        reply = client.post("/v1/messages?beta=true", json=body, headers=CLAUDE_CODE_HEADERS)
        assert reply.status_code == 200, reply.text
        message = reply.json()
        usage = message["usage"]
        assert usage["cache_read_input_tokens"] >= known
        # What the template puts around the next message is new, too.
        known = usage["input_tokens"] + usage["cache_read_input_tokens"] - 8
        call = {"type": "tool_use", "id": f"toolu_{number}", "name": "Read", "input": {"file_path": "square.png"}}
        read = {"type": "tool_result", "tool_use_id": call["id"], "content": [image_block(square("blue"))]}
        turns += [
            {"role": "assistant", "content": [*message["content"], call]},
            {"role": "user", "content": [read, cached("And now?")]},
        ]


def test_tokens_are_counted_as_the_request_itself_has_them(client: httpx.Client) -> None:
    """Tools, documents and the blocks that stand for images included; nothing is generated."""
    note = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "Bring milk."}}
    body: dict[str, Any] = {
        "model": "claude-haiku-4-5",
        "system": "Be brief.",
        "messages": [{"role": "user", "content": [image_block(square("green", 200)), note, cached("What is it?")]}],
        "tools": [READ],
    }
    count = client.post("/v1/messages/count_tokens?beta=true", json=body, headers=CLAUDE_CODE_HEADERS)
    assert count.status_code == 200, count.text
    usage = client.post("/v1/messages", json=body | {"max_tokens": 4}).json()["usage"]
    assert count.json() == {"input_tokens": usage["input_tokens"] + usage["cache_read_input_tokens"]}


def test_an_error_has_anthropic_s_shape_and_the_id_of_its_log_line(client: httpx.Client) -> None:
    """On every path below /v1/messages, and for whoever sends Anthropic's version header."""
    for method, path, headers, status, kind in (
        ("POST", "/v1/messages", {}, 400, "invalid_request_error"),
        ("GET", "/v1/messages", {}, 405, "invalid_request_error"),
        ("POST", "/v1/messages/batches", {}, 404, "not_found_error"),
        ("GET", "/v1/models/gpt-4", CLAUDE_CODE_HEADERS, 404, "not_found_error"),
    ):
        reply = client.request(method, path, headers=headers, content=b"{}")
        body = reply.json()
        assert (reply.status_code, body["type"], body["error"]["type"]) == (status, "error", kind)
        assert body["request_id"] == reply.headers["request-id"]


def test_claude_code_finds_a_server_at_the_root(client: httpx.Client) -> None:
    """It asks with HEAD before its first request."""
    assert client.head("/").status_code == 200


def test_an_answer_that_the_client_has_begun_goes_on(sdk: anthropic.Anthropic) -> None:
    """What comes is what is left of the whole answer, streamed and not; the count is of the request itself."""
    asked: Any = {"model": "demo", "max_tokens": 60}
    whole = text_of(sdk.messages.create(**asked, messages=QUESTION))
    begun, rest = whole[: whole.index(" ")], whole[whole.index(" ") :]
    messages: Any = [*QUESTION, {"role": "assistant", "content": begun}]
    message = sdk.messages.create(**asked, messages=messages)
    assert text_of(message) == rest
    with sdk.messages.stream(**asked, messages=messages) as stream:
        assert text_of(stream.get_final_message()) == rest
    counted = sdk.messages.count_tokens(model="demo", messages=messages)
    assert counted.input_tokens == message.usage.input_tokens
