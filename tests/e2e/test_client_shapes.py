"""What real clients write, on a real server: through the chat template, the grammar and the captioner."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from PIL import Image

from tests.e2e.drawing import picture, user

WEATHER = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": None, "required": None}},
}
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {}}}
HELLO = {"role": "user", "content": "Hello!"}
HISTORIES: dict[str, list[dict[str, Any]]] = {
    "calls and results without ids, a result that is null": [
        {"role": "assistant", "content": None, "tool_calls": [CALL, CALL]},
        {"role": "tool", "tool_name": "get_weather", "content": None},
        {"role": "tool", "tool_call_id": "", "content": []},
    ],
    "Anthropic's parts": [
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me look.", "signature": "s"},
                {"type": "redacted_thinking", "data": "ENC"},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]},
    ],
    "a call that never got a name": [
        {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "", "arguments": ""}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "There is no such tool."},
    ],
}


@pytest.mark.parametrize("history", HISTORIES)
def test_a_chat_with_such_a_history_goes_on(client: httpx.Client, history: str) -> None:
    """The next turn is answered, with numbers as clients write them."""
    body = {
        "messages": [HELLO, *HISTORIES[history], HELLO],
        "tools": [WEATHER],
        "max_tokens": 8.0,
        "top_k": -1,
        "seed": -1,
    }
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text


def test_a_tool_with_null_properties_can_be_called(client: httpx.Client) -> None:
    """The grammar that forces the call reads them as none."""
    body = {"messages": [HELLO], "tools": [WEATHER], "tool_choice": "required", "temperature": 0, "max_tokens": 100}
    (choice,) = client.post("/chat/completions", json=body).json()["choices"]
    (call,) = choice["message"]["tool_calls"]
    assert call["function"]["name"] == "get_weather"


@pytest.mark.parametrize("size", [(1093, 5), (1, 4000)])
def test_a_strip_is_described(client: httpx.Client, size: tuple[int, int]) -> None:
    """Not by a marker that says it could not be read."""
    body = {"messages": [user(picture(Image.new("RGB", size, "red")), "What is this?")], "max_tokens": 4}
    vision = client.post("/v1/chat/completions", json=body).json()["periscope"]["vision"]
    assert (vision["num_images"], vision["num_failed"]) == (1, 0)


def test_a_real_model_is_discovered_as_it_is(client: httpx.Client) -> None:
    """Its files and its template are told, and that it sees, in the shapes of LM Studio and llama.cpp."""
    first = client.get("/api/v0/models").json()["data"][0]
    assert (first["id"], first["type"], first["state"]) == ("demo", "vlm", "loaded")
    assert first["arch"]
    assert first["quantization"]
    assert first["loaded_context_length"] == first["max_context_length"]
    props = client.get("/props").json()
    assert props["modalities"]["vision"] is True
    assert props["default_generation_settings"]["n_ctx"] == first["loaded_context_length"]
    assert "messages" in props["chat_template"]
    assert client.get("/api/v1/models").json()["models"][0]["size_bytes"] > 1_000_000
