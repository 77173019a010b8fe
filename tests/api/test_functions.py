"""`functions` and `function_call`, which older clients send in place of `tools` and read in place of `tool_calls`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from periscope.api.openai.chat import decode
from periscope.core import Finished, FinishReason, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode
from tests.api.driving import HELLO, STREAM, USAGE, FakeBackend, called, client_of, in_loop

ASKED = [{"role": "user", "content": "Hi"}]
FUNCTIONS = [{"name": "time", "description": "Now"}, {"name": "weather", "parameters": {"type": "object"}}]
SCRIPT = (
    *called(0, ToolCall("call_0", "time", '{"a": 1}')),
    *called(1, ToolCall("call_1", "weather", "{}")),
    Finished(FinishReason.TOOL_CALLS, USAGE),
)


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice(is_parallel=False)),
        ("auto", ToolChoice(is_parallel=False)),
        ("none", ToolChoice(ToolChoiceMode.NONE, is_parallel=False)),
        ({"name": "time"}, ToolChoice(ToolChoiceMode.REQUIRED, "time", is_parallel=False)),
    ],
)
def test_functions_are_tools_of_which_one_is_called(choice: Any, expected: ToolChoice) -> None:
    """A message has room for one call."""
    call = decode({"messages": ASKED, "functions": FUNCTIONS, "function_call": choice}, "x")
    offered = (Tool("time", "Now"), Tool("weather", parameters={"type": "object"}))
    assert call.request.output.tools == (() if choice == "none" else offered)
    assert call.request.output.tool_choice == expected
    assert call.unused == ()


def test_a_call_and_its_result_come_back_by_name() -> None:
    """They have no ids; whether the request goes on with `functions` or with `tools` does not matter."""
    history = [
        *ASKED,
        {"role": "assistant", "content": None, "function_call": {"name": "time", "arguments": '{"a": 1}'}},
        {"role": "function", "name": "time", "content": "noon"},
    ]
    _, answered, result = decode({"messages": history}, "x").request.messages
    (call,) = answered.tool_calls
    assert (call.name, call.arguments) == ("time", '{"a": 1}')
    assert (result.role, result.text, result.name) == (Role.TOOL, "noon", "time")
    assert result.tool_call_id == call.id != ""


@in_loop
async def test_the_call_is_told_as_a_function_call() -> None:
    """Whole and streamed, the first of them alone, and the finish reason by its old name."""
    async with client_of(FakeBackend(*SCRIPT)) as client:
        whole = await client.post("/v1/chat/completions", json=HELLO | {"functions": FUNCTIONS})
        streamed = await client.post("/v1/chat/completions", json=STREAM | {"functions": FUNCTIONS})
    (choice,) = whole.json()["choices"]
    expected = {"name": "time", "arguments": '{"a": 1}'}
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "function_call": expected}
    assert choice["finish_reason"] == "function_call"
    lines = [line.removeprefix("data: ") for line in streamed.text.split("\n\n") if line.startswith("data: {")]
    choices = [json.loads(line)["choices"][0] for line in lines]
    pieces = [each["delta"]["function_call"] for each in choices if "function_call" in each["delta"]]
    assert pieces[0] == {"name": "time", "arguments": ""}
    assert "".join(piece["arguments"] for piece in pieces) == expected["arguments"]
    assert choices[-1]["finish_reason"] == "function_call"
