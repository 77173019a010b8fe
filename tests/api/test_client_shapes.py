"""What real clients write into a chat and send again with every turn: each shape gets its right value, not a 400."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.api.openai.chat import decode
from periscope.core import GenerationRequest, ImagePart, Message, ResponseFormat, Role, TextPart, ToolCall
from tests.api.driving import FakeBackend, in_loop, post_chat

USER = {"role": "user", "content": "Hi"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def request_of(*messages: dict[str, Any], **fields: Any) -> GenerationRequest:
    return decode({"messages": list(messages) or [USER]} | fields, "x").request


def tool(parameters: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": "f", "parameters": parameters}}


@pytest.mark.parametrize(
    ("parameters", "read"),
    [
        ({"type": "object", "properties": None, "required": None}, {"type": "object", "properties": {}}),
        (
            {"type": "object", "properties": {"required": {"type": "string", "enum": None}}, "description": None},
            {"type": "object", "properties": {"required": {"type": "string"}}},
        ),
        ({"properties": {"a": None}}, {"properties": {"a": {}}}),
        (
            {"properties": {"a": {"items": {"properties": None}, "default": None, "enum": ["x", None]}}},
            {"properties": {"a": {"items": {"properties": {}}, "default": None, "enum": ["x", None]}}},
        ),
        (
            {"anyOf": [{"required": None}, {"const": None}], "$defs": {"d": {"required": None}}, "items": None},
            {"anyOf": [{}, {"const": None}], "$defs": {"d": {}}},
        ),
        ({"properties": ["a"], "required": "a"}, {"properties": ["a"], "required": "a"}),
    ],
)
def test_null_required_and_properties_in_a_tool_mean_none(parameters: Any, read: Any) -> None:
    """Go writes an empty list as null: such keywords are left out wherever a schema can stand, and values stay."""
    (offered,) = request_of(tools=[tool(parameters)]).output.tools
    assert offered.parameters == read


def test_null_keywords_in_a_response_format_mean_none() -> None:
    """The same clients write the answer's schema."""
    schema = {"type": "object", "properties": {"a": {"type": "integer", "enum": None}}, "required": None}
    wire = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    asked = request_of(response_format=wire).output.response_format
    assert isinstance(asked, ResponseFormat)
    assert asked.schema == {"type": "object", "properties": {"a": {"type": "integer"}}}


@pytest.mark.parametrize(
    "part",
    [
        {"type": "thinking", "thinking": "2+2", "signature": "s"},
        {"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]},
        {"type": "reasoning", "text": "2+2"},
        {"type": "reasoning", "reasoning": "2+2"},
        {"type": "reasoning", "content": [], "summary": [{"type": "summary_text", "text": "2+2"}]},
        {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "2+2"}], "encrypted_content": "x"},
        {"type": "reasoning_content", "reasoning_content": {"text": "2+2", "signature": "s"}},
    ],
)
def test_thinking_parts_of_an_assistant_are_its_reasoning(part: dict[str, Any]) -> None:
    """In whatever shape the last server gave it; the text beside it stays text."""
    request = request_of(USER, {"role": "assistant", "content": [part, {"type": "text", "text": "4"}]}, USER)
    assert request.messages[1] == Message(Role.ASSISTANT, (TextPart("4"),), reasoning="2+2")


@pytest.mark.parametrize(
    ("message", "reasoning"),
    [
        ({"content": [{"type": "redacted_thinking", "data": "ENC"}, {"type": "text", "text": "4"}]}, None),
        ({"content": [{"type": "thinking", "thinking": "a"}, {"type": "thinking", "thinking": "b"}]}, "a\nb"),
        ({"content": [{"type": "thinking", "thinking": "a"}], "reasoning_content": "b"}, "b"),
        ({"content": [{"type": "thinking", "thinking": None}]}, None),
        ({"content": "4", "reasoning_details": [{"type": "reasoning.text", "text": "a"}]}, "a"),
        ({"content": "4", "reasoning_details": [{"type": "reasoning.encrypted", "data": "ENC"}]}, None),
        ({"content": "4", "thinking_blocks": [{"type": "thinking", "thinking": "a", "signature": "s"}]}, "a"),
        ({"content": "4", "thinking_blocks": None, "reasoning_details": []}, None),
    ],
)
def test_reasoning_is_found_wherever_a_server_put_it(message: dict[str, Any], reasoning: str | None) -> None:
    """Plain text goes before parts, and what is encrypted for its maker says nothing to anybody else."""
    assert request_of(USER, {"role": "assistant"} | message).messages[1].reasoning == reasoning


def test_calls_and_results_as_parts_are_calls_and_results() -> None:
    """A history in Anthropic's shape: the call beside its thought, the result in the user's next message."""
    png = "data:image/png;base64,AAAA"
    asked, first, second, user = request_of(
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Look."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
                {"type": "tool_use", "id": "t2", "name": "g", "input": {}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t2", "content": None},
                {
                    "type": "tool_result",
                    "tool_use_id": "t1",
                    "content": [{"type": "text", "text": "one"}, {"type": "image_url", "image_url": png}],
                },
                {"type": "text", "text": "And now?"},
                {"type": "tool_result", "tool_use_id": "of another chat", "content": "two"},
            ],
        },
    ).messages
    assert asked.tool_calls == (ToolCall("t1", "f", '{"a": 1}'), ToolCall("t2", "g", "{}"))
    assert asked.reasoning == "Look."
    assert first == Message(Role.TOOL, (), tool_call_id="t2")
    picture = ImagePart(png, "messages[1].content[1].content[1]")
    assert second == Message(Role.TOOL, (TextPart("one"), picture), tool_call_id="t1")
    assert user == Message(Role.USER, (TextPart("And now?"), TextPart("two")))


def test_a_users_message_of_results_alone_leaves_no_empty_one() -> None:
    """Templates that want turns to alternate would stumble over it."""
    use = {"type": "tool_use", "id": "t", "name": "f", "input": None}
    result = {"type": "tool_result", "tool_use_id": "t", "content": "done"}
    roles = [
        each.role for each in request_of({"role": "assistant", "content": [use]}, USER | {"content": [result]}).messages
    ]
    assert roles == [Role.ASSISTANT, Role.TOOL]


def test_a_refusal_beside_no_content_is_what_the_assistant_said() -> None:
    """OpenAI's models say it there."""
    message = request_of(USER, {"role": "assistant", "content": None, "refusal": "No."}).messages[1]
    assert message.parts == (TextPart("No."),)


@pytest.mark.parametrize("result", [{"content": None}, {}, {"content": []}, {"content": ""}])
def test_a_tool_result_may_be_empty(result: dict[str, Any]) -> None:
    """A command that prints nothing has a result, too: null, missing and empty are the same."""
    answer = {"role": "tool", "tool_call_id": "c1"} | result
    told = request_of(USER, {"role": "assistant", "tool_calls": [CALL]}, answer).messages[2]
    assert (told.role, told.tool_call_id, told.text) == (Role.TOOL, "c1", "")


@pytest.mark.parametrize("fields", [{"id": ""}, {"id": None}, {}])
@pytest.mark.parametrize("answer", [{"tool_call_id": ""}, {"tool_call_id": None}, {}])
def test_calls_without_ids_are_paired_by_order(fields: dict[str, Any], answer: dict[str, Any]) -> None:
    """Ollama's clients have no ids: the results answer the calls as they come."""
    calls = [{"function": {"name": name, "arguments": {}}} | fields for name in ("f", "g")]
    results = [{"role": "tool", "content": text} | answer for text in ("one", "two")]
    asked, first, second = request_of(USER, {"role": "assistant", "tool_calls": calls}, *results).messages[1:]
    assert [first.tool_call_id, second.tool_call_id] == [call.id for call in asked.tool_calls]
    assert len({call.id for call in asked.tool_calls}) == 2
    assert all(call.id for call in asked.tool_calls)
    assert asked.tool_calls[0] == ToolCall(asked.tool_calls[0].id, "f", "{}")


@pytest.mark.parametrize("function", [{"name": ""}, {"name": None}, {"arguments": "{}"}])
def test_a_call_that_a_model_left_without_a_name_stays_in_the_history(function: dict[str, Any]) -> None:
    """Small models write such calls, clients keep them, and nobody can mend them afterwards."""
    told = request_of(USER, {"role": "assistant", "tool_calls": [{"id": "c1", "function": function}]}).messages[1]
    assert told.tool_calls == (ToolCall("c1", "", "{}"),)


@pytest.mark.parametrize(
    ("fields", "read"),
    [
        ({"top_k": -1}, {"top_k": 0}),
        ({"top_k": -1.0}, {"top_k": 0}),
        ({"max_tokens": -1}, {"max_tokens": None}),
        ({"max_tokens": -1.0}, {"max_tokens": None}),
        ({"max_completion_tokens": -1}, {"max_tokens": None}),
        ({"max_completion_tokens": -1, "max_tokens": 5}, {"max_tokens": 5}),
        ({"seed": -1}, {"seed": None}),
        ({"max_tokens": 10.0}, {"max_tokens": 10}),
        ({"max_completion_tokens": 1e3}, {"max_tokens": 1000}),
        ({"top_k": 40.0}, {"top_k": 40}),
        ({"seed": 7.0}, {"seed": 7}),
        ({"seed": -7.0}, {"seed": -7}),
        ({"logprobs": True, "top_logprobs": 2.0}, {"top_logprobs": 2}),
    ],
)
def test_numbers_are_read_as_clients_mean_them(fields: dict[str, Any], read: dict[str, Any]) -> None:
    """-1 asks for nothing, and a language without integers writes 10 as 10.0."""
    params = request_of(**fields).params
    for name, value in read.items():
        assert getattr(params, name) == value
        assert type(getattr(params, name)) is type(value)


def test_one_choice_written_as_a_float_or_null_is_one() -> None:
    """`n` is a whole number, too."""
    assert [request_of(n=n).num_choices for n in (None, 1.0, 2.0)] == [1, 1, 2]


@pytest.mark.parametrize(
    "fields",
    [
        {"images": None, "files": [], "audio": None, "function_call": None, "refusal": None, "annotations": []},
        {"id": "m1", "createdAt": "2026-01-01", "metadata": {"a": [1]}, "cache_control": {"type": "ephemeral"}},
        {"parts": [{"type": "text", "text": "Hi"}], "text": "Hi", "prefix": False},
    ],
)
def test_fields_that_carry_nothing_are_let_be(fields: dict[str, Any]) -> None:
    """What SDKs add to every message, and what only repeats the content, stops no chat."""
    assert request_of(USER | fields).messages == (Message(Role.USER, (TextPart("Hi"),)),)


@in_loop
async def test_a_byte_order_mark_is_no_part_of_the_body() -> None:
    """PowerShell's and .NET's files begin with one."""
    backend = FakeBackend()
    response = await post_chat(backend, b'\xef\xbb\xbf{"messages": [{"role": "user", "content": "Hi"}]}')
    assert response.status_code == 200
    assert backend.requests[0].messages[0].text == "Hi"


@in_loop
async def test_half_a_surrogate_in_a_tool_result_is_a_replacement_character() -> None:
    """JavaScript cuts texts in the middle of an emoji; the chat goes on for all that."""
    backend = FakeBackend()
    messages = [
        rb'{"role": "user", "content": "Hi"}',
        rb'{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {"\udc00": "\ud83d"}}}]}',
        rb'{"role": "tool", "content": "cut \ud83d"}',
    ]
    body = rb'{"messages": [%b], "stop": ["\ude00"]}' % b", ".join(messages)
    assert (await post_chat(backend, body)).status_code == 200
    (request,) = backend.requests
    assert request.messages[2].text == "cut \ufffd"
    assert request.messages[1].tool_calls[0].arguments == '{"\ufffd": "\ufffd"}'
    assert request.params.stop == ("\ufffd",)


@pytest.mark.parametrize(
    ("flags", "continues"),
    [
        ({"continue_final_message": True, "add_generation_prompt": False}, True),
        ({"continue_final_message": True}, True),
        ({"continue_final_message": False, "add_generation_prompt": True}, False),
        ({}, False),
    ],
)
def test_an_answer_goes_on_only_where_a_flag_says_so(flags: dict[str, Any], continues: bool) -> None:
    """Without one a last message of the assistant is a turn that has ended, as with OpenAI and vLLM."""
    begun = {"role": "assistant", "content": "It is "}
    request = request_of(USER, begun, **flags)
    assert request.continues is continues
    assert request.messages[-1] == Message(Role.ASSISTANT, (TextPart("It is "),))


@pytest.mark.parametrize("flag", ["prefix", "partial"])
def test_the_flag_may_stand_in_the_message(flag: str) -> None:
    """As DeepSeek, Mistral, Moonshot and Qwen have it. A message without a word is a new turn."""
    assert request_of(USER, {"role": "assistant", "content": "It is ", flag: True}).continues
    empty = request_of(USER, {"role": "assistant", "content": "", flag: True})
    assert (empty.continues, len(empty.messages)) == (False, 1)
