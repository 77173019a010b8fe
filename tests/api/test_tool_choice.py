"""`tools` and `tool_choice`: what the model may, must not or must call."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.errors import UnsupportedParameter
from periscope.api.openai.chat import ChatCall, decode
from periscope.core import AnswerGrammar, GenerationRequest, Message, Role, Tool, ToolCall, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "Now", "parameters": SCHEMA}},
    {"type": "function", "function": {"name": "time", "strict": True}},
]
OFFERED = (Tool("weather", "Now", SCHEMA), Tool("time", is_strict=True))
NAMED = {"type": "function", "function": {"name": "time"}}
UNKNOWN = {"type": "function", "function": {"name": "tim"}}
WEB_SEARCH = {"type": "web_search", "search_context_size": "low"}
LARK = 'start: "circle" | "square"'


def allowing(mode: str, *tools: Any) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


def custom(name: str, **form: Any) -> dict[str, Any]:
    return {"type": "custom", "custom": {"name": name, "description": "Draws."} | ({"format": form} if form else {})}


def grammar(syntax: str, definition: str) -> dict[str, Any]:
    return {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}


def call_of(**fields: Any) -> ChatCall:
    return decode({"messages": [{"role": "user", "content": "Hi"}]} | fields, "x")


def request_of(**fields: Any) -> GenerationRequest:
    return call_of(**fields).request


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        (None, ToolChoice()),
        ("auto", ToolChoice()),
        ("required", ToolChoice(ToolChoiceMode.REQUIRED)),
        ("any", ToolChoice(ToolChoiceMode.REQUIRED)),
        (NAMED, ToolChoice(ToolChoiceMode.REQUIRED, "time")),
        (allowing("auto", NAMED), ToolChoice(allowed=frozenset({"time"}))),
        (allowing("required", NAMED, WEB_SEARCH), ToolChoice(ToolChoiceMode.REQUIRED, allowed=frozenset({"time"}))),
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
            "tool_choice.allowed_tools.mode",
            InvalidRequest,
        ),
        ({"tool_choice": {"type": "allowed_tools"}, "tools": TOOLS}, "tool_choice.allowed_tools", InvalidRequest),
        ({"tool_choice": allowing("none", NAMED), "tools": TOOLS}, "tool_choice.allowed_tools.mode", InvalidRequest),
        ({"tool_choice": allowing("auto"), "tools": TOOLS}, "tool_choice.allowed_tools.tools", InvalidRequest),
        (
            {"tool_choice": allowing("auto", {"type": "web_search"}), "tools": TOOLS},
            "tool_choice.allowed_tools.tools",
            InvalidRequest,
        ),
        (
            {"tool_choice": allowing("auto", NAMED, UNKNOWN), "tools": TOOLS},
            "tool_choice.allowed_tools.tools[1].function.name",
            InvalidRequest,
        ),
        (
            {"tool_choice": {"type": "custom", "custom": {"name": "time"}}, "tools": TOOLS},
            "tool_choice.custom.name",
            InvalidRequest,
        ),
        ({"tool_choice": {"type": "web_search"}, "tools": [*TOOLS, WEB_SEARCH]}, "tool_choice", InvalidRequest),
        ({"tools": [WEB_SEARCH, {"type": "mcp", "server_label": "x"}]}, "tools[0].type", UnsupportedParameter),
        (
            {"tools": [custom("draw", **grammar("ebnf", "x"))]},
            "tools[0].custom.format.grammar.syntax",
            UnsupportedParameter,
        ),
        (
            {"tools": [custom("draw", **grammar("lark", ""))]},
            "tools[0].custom.format.grammar.definition",
            InvalidRequest,
        ),
        ({"tools": [custom("draw", type="grammar")]}, "tools[0].custom.format.grammar", InvalidRequest),
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


def test_tools_that_the_client_does_not_run_are_left_out_and_named() -> None:
    """An agent's turn goes on without them; the log and the answer say so."""
    call = call_of(tools=[WEB_SEARCH, *TOOLS, {"type": "brand_new"}])
    assert call.request.output.tools == OFFERED
    assert call.left_out == call.unused == ("tools[0] (web_search)", "tools[3] (brand_new)")


def test_a_custom_tool_is_a_function_with_one_text() -> None:
    """Its format is told to the model, and a regular expression holds in every call."""
    call = call_of(tools=[custom("say"), custom("code", **grammar("regex", "[a-f]+|x")), *TOOLS])
    say, code, *others = call.request.output.tools
    assert tuple(others) == OFFERED
    assert call.custom_tools == {"say", "code"}
    assert (say.description, say.parameters["properties"]) == ("Draws.", {"input": {"type": "string"}})
    assert code.description == "Draws.\n\nThe input must fit this regular expression:\n[a-f]+|x"
    assert code.parameters["properties"] == {"input": {"type": "string", "pattern": "^(?:[a-f]+|x)$"}}
    assert code.parameters["required"] == ["input"]
    assert (say.is_strict, code.is_strict) == (False, True)
    assert call.unused == ()


@pytest.mark.parametrize(
    ("choice", "is_forced"),
    [
        ("auto", False),
        ("required", False),
        ({"type": "custom", "custom": {"name": "draw"}}, True),
        (allowing("required", {"type": "custom", "custom": {"name": "draw"}}), True),
        (allowing("auto", {"type": "custom", "custom": {"name": "draw"}}), False),
    ],
)
def test_a_grammar_holds_where_its_tool_must_be_called(choice: Any, *, is_forced: bool) -> None:
    """Then the text is the whole answer, which is told as a call; else the log says that calls may miss the grammar."""
    call = call_of(tools=[custom("draw", **grammar("lark", LARK)), *TOOLS], tool_choice=choice, stop="x")
    output, param = call.request.output, "tools[0].custom.format.grammar.definition"
    assert len(output.tools) == 3
    assert call.answers_as == ("draw" if is_forced else None)
    assert output.response_format == (AnswerGrammar(grammar=LARK, param=param) if is_forced else None)
    assert call.request.params.stop == (() if is_forced else ("x",))
    assert [place.split(" ")[0] for place in call.unused] == ([] if is_forced else [param])


def test_the_only_tool_that_must_be_called_is_as_good_as_named() -> None:
    """`required` beside one tool."""
    assert call_of(tools=[custom("draw", **grammar("lark", LARK))], tool_choice="required").answers_as == "draw"


def test_calls_of_custom_tools_come_back_in_the_history() -> None:
    """With their results, as the function that the model knows."""
    called = {"id": "call_1", "type": "custom", "custom": {"name": "say", "input": 'a "b"\n'}}
    result = {"role": "tool", "tool_call_id": "call_1", "content": "done"}
    asked, answered, _ = request_of(
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "tool_calls": [called]}, result]
    ).messages
    assert asked.role is Role.USER
    assert answered == Message(Role.ASSISTANT, tool_calls=(ToolCall("call_1", "say", '{"input": "a \\"b\\"\\n"}'),))
