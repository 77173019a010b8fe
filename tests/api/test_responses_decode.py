"""Responses, wire to core: what items become, which tools the model is offered, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.api.errors import UnsupportedParameter
from periscope.api.responses.decode import Decoded, decode, decode_prompt
from periscope.api.responses.sealed import ReasoningSeal
from periscope.core import (
    ImagePart,
    Message,
    ResponseFormat,
    Role,
    TextPart,
    ToolCall,
    ToolChoiceMode,
)
from periscope.errors import InvalidRequest

SEAL = ReasoningSeal("secret")
PICTURE = "data:image/png;base64,AAAA"
WEATHER: dict[str, Any] = {"type": "function", "name": "weather", "parameters": {"type": "object"}}


def decoded(**body: Any) -> Decoded:
    return decode({"input": "Hi"} | body, "resp_1").request(SEAL)


def messages(*items: dict[str, Any], **body: Any) -> tuple[Message, ...]:
    return decoded(input=list(items), **body).request.messages


def test_the_items_of_one_answer_are_one_message() -> None:
    """As the model wrote it: the prompt of the next turn begins as this one's prompt and answer did."""
    told = messages(
        {"role": "user", "content": "Look."},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I will."}]},
        {"type": "function_call", "call_id": "a", "name": "look", "arguments": '{"x":1}'},
        {"type": "function_call", "call_id": "b", "name": "look", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_image", "image_url": PICTURE}]},
        {"type": "function_call_output", "call_id": "a", "output": "Nothing."},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Well."}]},
        {"role": "assistant", "content": "Done."},
        instructions="Be brief.",
    )
    assert told == (
        Message(Role.SYSTEM, (TextPart("Be brief."),)),
        Message(Role.USER, (TextPart("Look."),)),
        Message(
            Role.ASSISTANT,
            (TextPart("I will."),),
            tool_calls=(ToolCall("a", "look", '{"x":1}'), ToolCall("b", "look", "{}")),
            reasoning="Hm.",
        ),
        Message(Role.TOOL, (ImagePart(PICTURE, "input[5].output[0]"),), tool_call_id="b"),
        Message(Role.TOOL, (TextPart("Nothing."),), tool_call_id="a"),
        Message(Role.ASSISTANT, (TextPart("Done."),), reasoning="Well."),
    )


def test_calls_of_tools_that_openai_defines_are_calls_with_results() -> None:
    """The model reads what a shell was asked and said, and sees the screenshot of a computer."""
    told = messages(
        {"type": "local_shell_call", "call_id": "a", "action": {"type": "exec", "command": ["ls"]}},
        {"type": "local_shell_call_output", "id": "a", "output": "a.txt"},
        {"type": "shell_call", "call_id": "b", "action": {"commands": ["ls"]}},
        {"type": "shell_call_output", "call_id": "b", "output": [{"stdout": "b.txt", "stderr": ""}]},
        {"type": "computer_call", "call_id": "c", "action": {"type": "screenshot"}},
        {
            "type": "computer_call_output",
            "call_id": "c",
            "output": {"type": "computer_screenshot", "image_url": PICTURE},
        },
        {"type": "custom_tool_call", "call_id": "d", "name": "patch", "input": 'a "b"'},
        {"type": "custom_tool_call_output", "call_id": "d", "output": "Done."},
        {"type": "mcp_call", "id": "e", "name": "f", "arguments": "{}", "output": "g", "server_label": "h"},
    )
    calls = [call for message in told for call in message.tool_calls]
    assert [(call.name, call.arguments) for call in calls] == [
        ("local_shell", '{"type": "exec", "command": ["ls"]}'),
        ("shell", '{"commands": ["ls"]}'),
        ("computer", '{"type": "screenshot"}'),
        ("patch", '{"input": "a \\"b\\""}'),
        ("h__f", "{}"),
    ]
    results = [message for message in told if message.role is Role.TOOL]
    assert [message.tool_call_id for message in results] == [call.id for call in calls]
    assert [message.text for message in results] == ["a.txt", '{"stdout": "b.txt", "stderr": ""}', "", "Done.", "g"]
    assert results[2].images == (ImagePart(PICTURE, "input[5].output[0]"),)


def test_what_a_tool_of_openai_s_did_is_read_as_text_and_what_it_drew_is_seen() -> None:
    """Neither ends the conversation, and nor does an item that is not known."""
    call = decoded(
        input=[
            {"type": "web_search_call", "id": "a", "status": "completed", "action": {"type": "search", "query": "x"}},
            {"type": "image_generation_call", "id": "b", "status": "completed", "result": "AAAA"},
            {"type": "ghost_snapshot", "ghost_commit": {}},
            {"type": "compaction", "encrypted_content": "x"},
            {"type": "reasoning", "summary": [], "encrypted_content": "of another server"},
            {"role": "user", "content": "Go on."},
        ]
    )
    said, asked = call.request.messages
    assert said.text == '[web_search was called: {"action": {"type": "search", "query": "x"}}]'
    assert said.images == (ImagePart(PICTURE, "input[1]"),)
    assert asked.text == "Go on."
    assert call.unused == ("input[2] (ghost_snapshot)", "input[3] (compaction)", "input[4] (reasoning)")


def test_tools_of_a_group_have_its_name_before_theirs_in_every_turn() -> None:
    """Two servers may have a tool of one name; calls in the history have the name that the model wrote."""
    group = {"type": "namespace", "name": "mcp__files__", "tools": [WEATHER, {"type": "custom", "name": "patch"}]}
    call = decoded(
        tools=[WEATHER, group, {"type": "web_search"}],
        input=[
            {
                "type": "function_call",
                "call_id": "a",
                "name": "weather",
                "namespace": "mcp__files__",
                "arguments": "{}",
            },
            {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "more"}]},
        ],
    )
    names = ["weather", "mcp__files__weather", "mcp__files__patch", "more"]
    assert [tool.name for tool in call.request.output.tools] == names
    assert call.request.messages[0].tool_calls[0].name == "mcp__files__weather"
    assert call.tools.known("mcp__files__patch").is_custom
    assert (call.tools.known("mcp__files__weather").name, call.tools.known("nobody's").name) == ("weather", "nobody's")
    assert call.tools.left_out == ("tools[2] (web_search)",)


def test_allowed_tools_leave_the_prompt_s_list_as_it_is() -> None:
    """Those that are not allowed now are offered, and cannot be called."""
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "more"}]}
    output = decoded(tools=[WEATHER, WEATHER | {"name": "more"}], tool_choice=allowed).request.output
    assert len(output.tools) == 2
    assert (output.tool_choice.mode, output.tool_choice.allowed) == (ToolChoiceMode.REQUIRED, frozenset({"more"}))


def test_a_grammar_holds_where_its_tool_must_be_called() -> None:
    """The text of the call is then the whole answer; elsewhere the model is told of it, and the log, too."""
    form = {"type": "grammar", "syntax": "lark", "definition": "start: /a+/"}
    tool = {"type": "custom", "name": "patch", "format": form}
    forced = decoded(tools=[tool], tool_choice={"type": "custom", "name": "patch"}, stop=["a"])
    assert (forced.answers_as, forced.unused, forced.request.params.stop) == ("patch", (), ())
    free = decoded(tools=[tool])
    assert free.answers_as is None
    assert "start: /a+/" in free.request.output.tools[0].description
    assert free.unused[0].startswith("tools[0].format.definition (told to the model")


def test_the_form_of_the_answer_and_the_bound_of_thinking() -> None:
    """Under the names of this API."""
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object", "description": None}}
    request = decoded(
        text={"format": form, "verbosity": "low"}, reasoning={"effort": "low"}, max_output_tokens=9, seed=3
    ).request
    assert request.output.response_format == ResponseFormat({"type": "object"}, "text.format.schema")
    assert (request.params.max_tokens, request.params.seed, request.params.thinking_budget) == (9, 3, 1024)
    assert request.template_kwargs["reasoning_effort"] == "low"
    assert decode_prompt({"input": "Hi"}, "count_1").request(SEAL).request.counts_only


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": []}, "input"),
    ({"input": None}, "input"),
    ({"input": 5}, "input"),
    ({"input": [1]}, "input[0]"),
    ({"input": [{"role": "robot", "content": "Hi"}]}, "input[0].role"),
    ({"input": [{"role": "user"}]}, "input[0].content"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].image_url"),
    ({"input": [{"type": "mesage", "content": "Hi"}]}, "input[0].type"),
    ({"input": [{"type": 5}]}, "input[0].type"),
    ({"input": [{"type": "function_call", "name": 5}]}, "input[0].name"),
    ({"input": [{"type": "function_call", "name": "a", "arguments": 5}]}, "input[0].arguments"),
    ({"input": [{"type": "function_call_output", "output": [{"type": "foo"}], "call_id": "a"}]}, "input[0].output[0]"),
    ({"max_output_tokens": 0}, "max_output_tokens"),
    ({"top_logprobs": 99}, "top_logprobs"),
    ({"truncation": "maybe"}, "truncation"),
    ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
    ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
    ({"tools": [{"type": "function"}]}, "tools[0].name"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].name"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"tools": [{"type": "custom", "name": "a", "format": {"type": "x"}}]}, "tools[0].format"),
    ({"input": [{"type": "item_reference"}]}, "input[0].id"),
    ({"input": [{"id": 5}]}, "input[0].id"),
    ({"input": [{"type": "additional_tools", "tools": [5]}]}, "input[0].tools[0]"),
    ({"input": [{"type": "reasoning", "summary": "x"}]}, "input[0].summary"),
    ({"input": [{"type": "reasoning", "summary": [{"text": 5}]}]}, "input[0].summary[0].text"),
    ({"tool_choice": "required"}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "web_search_preview"}}, "tool_choice"),
    ({"tools": [WEATHER], "tool_choice": {"type": "function", "name": "other"}}, "tool_choice.name"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "x", "tools": []}}, "tool_choice.mode"),
    ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.tools"),
    ({"background": True}, "background"),
    ({"conversation": "conv_1"}, "conversation"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
def test_what_cannot_be_read_or_done_is_named(body: dict[str, Any], param: str) -> None:
    """With its place in the request."""
    with pytest.raises(InvalidRequest) as error:
        decoded(**body)
    assert error.value.param == param
    assert param in error.value.message


def test_a_result_of_no_call_is_told_in_the_words_of_this_api() -> None:
    """`call_id` is optional in the SDK's types; without one a call must stand before it."""
    with pytest.raises(InvalidRequest, match="`call_id`") as error:
        messages({"type": "function_call_output", "output": "x"})
    assert error.value.param == "input"


def test_too_many_items_are_refused_before_they_are_read() -> None:
    """Those of the responses before count, too."""
    earlier = [{"id": str(number), "role": "user", "content": "x"} for number in range(10_000)]
    with pytest.raises(InvalidRequest, match="10001 items; at most 10000"):
        decode({"input": "Hi"}, "resp_1").request(SEAL, earlier)


@given(st.text(), st.text(max_size=80))
def test_only_what_was_sealed_here_is_opened(text: str, other: str) -> None:
    """Any text comes back; not with another key, not changed, and nothing else raises."""
    sealed = SEAL.sealed(text)
    assert SEAL.opened(sealed) == text
    assert ReasoningSeal("another").opened(sealed) is None
    assert SEAL.opened(sealed[:-6] + ("AAAAAA" if not sealed.endswith("AAAAAA") else "BBBBBB")) is None
    assert SEAL.opened(other) is None
    assert SEAL.opened(f"psr1.{other}") is None


def test_a_refusal_says_that_it_is_not_supported() -> None:
    """Its code differs from that of a wrong value."""
    with pytest.raises(UnsupportedParameter):
        decoded(prompt={"id": "pmpt_1"})
