"""`tools` and `tool_choice`: what the model may, must not or must call."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.errors import UnsupportedParameter
from periscope.api.openai.chat import decode
from periscope.core import GenerationRequest, Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "time", "strict": True}},
]
OFFERED = (Tool("weather", "Now", SCHEMA), Tool("time", is_strict=True))
NAMED = {"type": "function", "function": {"name": "time"}}


def request_of(**fields: Any) -> GenerationRequest:
    return decode({"messages": [{"role": "user", "content": "Hi"}]} | fields, "x").request


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("required", ToolChoice(ToolChoiceMode.REQUIRED)),
        ("any", ToolChoice(ToolChoiceMode.REQUIRED)),
        (NAMED, ToolChoice(ToolChoiceMode.REQUIRED, "time")),
    ],
)
def test_tools_are_offered_with_the_choice(choice: Any, expected: ToolChoice) -> None:
    """Every form of the choice arrives, and all tools with it: a named one is part of the choice."""
    request = request_of(tools=TOOLS, tool_choice=choice)
    assert (request.output.tools, request.output.tool_choice) == (OFFERED, expected)


@pytest.mark.parametrize(("wire", "is_strict"), [(None, False), (False, False), (True, True)])
def test_a_strict_tool_arrives_as_one(*, wire: bool | None, is_strict: bool) -> None:
    """`strict` stands beside the function's name, where OpenAI has it."""
    (tool,) = request_of(tools=[{"type": "function", "function": {"name": "time", "strict": wire}}]).output.tools
    assert tool.is_strict is is_strict


def test_none_offers_nothing() -> None:
    """The model never hears of tools it must not call."""
    request = request_of(tools=TOOLS, tool_choice="none")
    assert (request.output.tools, request.output.tool_choice) == ((), ToolChoice(ToolChoiceMode.NONE))


@pytest.mark.parametrize("choice", [None, "none", "auto", "required", NAMED])
@pytest.mark.parametrize(("wire", "is_parallel"), [(None, True), (True, True), (False, False)])
def test_parallel_calls_are_part_of_every_choice(choice: Any, wire: bool | None, is_parallel: bool) -> None:
    """`parallel_tool_calls: false` reaches the engine, whatever else was chosen."""
    request = request_of(tools=TOOLS, tool_choice=choice, parallel_tool_calls=wire)
    assert request.output.tool_choice.is_parallel is is_parallel


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_choice_that_demands_nothing_needs_no_tools(choice: str) -> None:
    """Agents send it with every request, with tools and without."""
    assert request_of(tool_choice=choice).output.tools == ()


@pytest.mark.parametrize(
    ("fields", "param", "error"),
    [
        ({"tool_choice": "required"}, "tool_choice", InvalidRequest),
        ({"tool_choice": "any", "tools": []}, "tool_choice", InvalidRequest),
        ({"tool_choice": NAMED}, "tool_choice", InvalidRequest),
        ({"tool_choice": "sometimes", "tools": TOOLS}, "tool_choice", InvalidRequest),
        ({"tool_choice": 5, "tools": TOOLS}, "tool_choice", InvalidRequest),
        ({"tool_choice": ["auto"], "tools": TOOLS}, "tool_choice", InvalidRequest),
        ({"tool_choice": {}, "tools": TOOLS}, "tool_choice.type", InvalidRequest),
        ({"tool_choice": {"type": "tool", "name": "time"}, "tools": TOOLS}, "tool_choice", InvalidRequest),
        ({"tool_choice": "function", "tools": TOOLS}, "tool_choice.function", InvalidRequest),
        ({"tool_choice": {"type": "function", "name": "time"}, "tools": TOOLS}, "tool_choice.function", InvalidRequest),
        (
            {"tool_choice": {"type": "function", "function": {}}, "tools": TOOLS},
            "tool_choice.function.name",
            InvalidRequest,
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "tim"}}, "tools": TOOLS},
            "tool_choice.function.name",
            InvalidRequest,
        ),
        (
            {"tool_choice": {"type": "allowed_tools", "allowed_tools": {}}, "tools": TOOLS},
            "tool_choice",
            UnsupportedParameter,
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "x"}}, "tools": TOOLS},
            "tool_choice",
            UnsupportedParameter,
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "time", "strict": "yes"}}]},
            "tools[0].function.strict",
            InvalidRequest,
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls", InvalidRequest),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused(fields: Any, param: str, error: type[InvalidRequest]) -> None:
    """No such kind, no such tool, no tool at all: the error names the field, and nothing is ignored."""
    with pytest.raises(InvalidRequest) as caught:
        request_of(**fields)
    assert caught.type is error
    assert caught.value.param == param
    assert param in caught.value.message


def test_two_tools_of_one_name_are_refused_with_both_places() -> None:
    """A call of that name could mean either, and no client could tell which."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("time", "weather", "time")]
    with pytest.raises(InvalidRequest) as caught:
        request_of(tools=tools, tool_choice="none")
    assert caught.value.param == "tools[2].function.name"
    assert caught.value.message == (
        '`tools[2].function.name` is the string "time", as `tools[0].function.name` is already. '
        "Give each tool a name of its own."
    )


def test_an_unknown_tool_is_told_with_the_known_ones() -> None:
    """A typing error is mended at a glance."""
    choice = {"type": "function", "function": {"name": "tim"}}
    with pytest.raises(InvalidRequest) as caught:
        request_of(tools=TOOLS, tool_choice=choice)
    assert caught.value.message == ('`tool_choice.function.name` must be one of weather, time, got the string "tim".')
