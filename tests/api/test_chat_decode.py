"""OpenAI's request as a `GenerationRequest`: every shape of content, every role, every param."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from periscope.api.openai.chat import decode
from periscope.core import GenerationParams, GenerationRequest, ImagePart, Message, Part, Role, TextPart, ToolCall
from periscope.errors import InvalidRequest

PNG = "data:image/png;base64,AAAA"
AT = "messages[0].content[0]"


def messages_of(*messages: dict[str, Any]) -> tuple[Message, ...]:
    return decode({"messages": list(messages)}, "chatcmpl-1").request.messages


SHAPES: list[tuple[dict[str, Any], tuple[Part, ...]]] = [
    ({"type": "text", "text": "a"}, (TextPart("a"),)),
    ({"type": "input_text", "text": "a"}, (TextPart("a"),)),
    ({"type": "output_text", "text": "a"}, (TextPart("a"),)),
    ({"type": "refusal", "refusal": "no"}, (TextPart("no"),)),
    ({"type": "image_url", "image_url": {"url": PNG, "detail": "low"}}, (ImagePart(PNG, AT),)),
    ({"type": "image_url", "image_url": PNG}, (ImagePart(PNG, AT),)),
    ({"type": "image_url", "image_url": "file:///etc/passwd"}, (ImagePart("file:///etc/passwd", AT),)),
    ({"type": "input_image", "image_url": PNG}, (ImagePart(PNG, AT),)),
    ({"type": "input_image", "image_url": {"url": PNG}}, (ImagePart(PNG, AT),)),
    (
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        (ImagePart(PNG, AT),),
    ),
    ({"type": "image", "source": {"type": "url", "url": "https://x/y.png"}}, (ImagePart("https://x/y.png", AT),)),
    ({"type": "image", "data": "AAAA", "mimeType": "image/png"}, (ImagePart(PNG, AT),)),
    ({"type": "tool_result", "tool_use_id": "t", "content": "done"}, (TextPart("done"),)),
    ({"type": "tool_result", "tool_use_id": "t"}, ()),
    (
        {"type": "tool_result", "content": [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": PNG}]},
        (TextPart("a"), ImagePart(PNG, f"{AT}.content[1]")),
    ),
]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
@pytest.mark.parametrize(("part", "parts"), SHAPES)
def test_every_shape_of_part_is_taken_in_every_role(part: dict[str, Any], parts: tuple[Part, ...], role: str) -> None:
    """Images come where agents put them, in tool results too, and each knows its exact place."""
    (message,) = messages_of({"role": role, "content": [part], "tool_call_id": "t"})
    assert message.parts == parts
    assert message.role == ("system" if role == "developer" else role)


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ({"role": "user", "content": "Hi"}, Message(Role.USER, (TextPart("Hi"),))),
        ({"role": "user", "content": []}, Message(Role.USER)),
        ({"role": "user", "content": "Hi", "name": "Ann"}, Message(Role.USER, (TextPart("Hi"),), name="Ann")),
        ({"role": "assistant"}, Message(Role.ASSISTANT)),
        ({"role": "assistant", "content": None}, Message(Role.ASSISTANT)),
        (
            {"role": "assistant", "content": "4", "reasoning_content": "2+2"},
            Message(Role.ASSISTANT, (TextPart("4"),), reasoning="2+2"),
        ),
        ({"role": "assistant", "reasoning": "r"}, Message(Role.ASSISTANT, reasoning="r")),
        ({"role": "assistant", "thinking": "r"}, Message(Role.ASSISTANT, reasoning="r")),
        (
            {"role": "tool", "content": "ok", "tool_call_id": "c1"},
            Message(Role.TOOL, (TextPart("ok"),), tool_call_id="c1"),
        ),
        (
            {"role": "user", "content": "x", "tool_calls": [], "tool_call_id": "stray"},
            Message(Role.USER, (TextPart("x"),)),
        ),
    ],
)
def test_messages(wire: dict[str, Any], message: Message) -> None:
    """Each role's fields arrive, and only where they belong."""
    assert messages_of(wire) == (message,)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ({"ä": [1]}, '{"ä": [1]}'),
        ("", "{}"),
        (None, "{}"),
        ("{broken", "{broken"),
    ],
)
def test_tool_calls_of_the_history(arguments: Any, text: str) -> None:
    """Arguments may be text or an object; text stays as it was written, even by a worse model."""
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    (message,) = messages_of({"role": "assistant", "content": None, "tool_calls": [call]})
    assert message == Message(Role.ASSISTANT, tool_calls=(ToolCall("c1", "f", text),))


def test_params() -> None:
    """Every sampling param arrives under its own name; the newer name of max_tokens wins."""
    fields = {
        "temperature": 0,
        "top_p": 0.5,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.2,
        "presence_penalty": -0.2,
        "seed": 7,
        "logprobs": True,
        "top_logprobs": 20,
        "min_tokens": 3,
        "ignore_eos": True,
    }
    wire = {"messages": [{"role": "user", "content": ""}], "max_tokens": 5, "max_completion_tokens": 9, "stop": "END"}
    params = decode(
        wire | fields | {"logit_bias": {"0": -100, "1234": 2.5}, "stop_token_ids": [5, 6]}, "x"
    ).request.params
    expected = GenerationParams(**fields, max_tokens=9, stop=("END",), logit_bias=((0, -100), (1234, 2.5)))  # type: ignore[arg-type]
    assert params == replace(expected, stop_token_ids=(5, 6))
    assert decode(wire | {"max_completion_tokens": None}, "x").request.params.max_tokens == 5


@pytest.mark.parametrize(
    "content", ["def f(): pass", [{"type": "text", "text": "def f()"}, {"type": "text", "text": ": pass"}]]
)
def test_a_prediction_is_one_text(content: Any) -> None:
    """Of a string or of its parts; without one there is none."""
    wire: dict[str, Any] = {"messages": [{"role": "user", "content": "Hi"}]}
    assert decode(wire | {"prediction": {"type": "content", "content": content}}, "x").request.prediction == (
        "def f(): pass"
    )
    for nothing in (None, {"type": "content", "content": []}, {"type": "content", "content": ""}):
        assert not decode(wire | {"prediction": nothing}, "x").request.prediction


def test_null_and_neutral_fields_ask_for_nothing() -> None:
    """Clients that fill every field with its default, and unknown harmless ones, are served."""
    wire: dict[str, Any] = {
        "model": None,
        "messages": [{"role": "user", "content": "Hi", "refusal": None}],
        **dict.fromkeys(["stop", "seed", "temperature", "max_tokens", "tools", "stream", "stream_options", "n"]),
        "logprobs": False,
        "top_logprobs": None,
        "logit_bias": {},
        "response_format": {"type": "text"},
        "functions": [],
        "modalities": ["text"],
        "user": "me",
        "metadata": {"a": "b"},
        "store": False,
        "service_tier": "auto",
        "structured_outputs": {"json": None, "regex": None, "disable_fallback": False},
        "chat_template_kwargs": {},
        **dict.fromkeys(["guided_json", "json_schema", "reasoning_effort", "tool_choice", "grammar"]),
    }
    call = decode(wire, "x")
    assert call.request == GenerationRequest("x", "", (Message(Role.USER, (TextPart("Hi"),)),))
    assert not call.is_stream


@pytest.mark.parametrize(
    ("fields", "kwargs"),
    [
        ({"chat_template_kwargs": {"enable_thinking": True, "x": [1]}}, {"enable_thinking": True, "x": [1]}),
        ({"reasoning_effort": "minimal"}, {"reasoning_effort": "minimal"}),
        ({"reasoning_effort": "none"}, {"reasoning_effort": "none", "enable_thinking": False, "thinking": False}),
        (
            {"reasoning_effort": "none", "chat_template_kwargs": {"enable_thinking": True}},
            {"reasoning_effort": "none", "enable_thinking": True},
        ),
    ],
)
def test_template_kwargs(fields: dict[str, Any], kwargs: dict[str, Any]) -> None:
    """Template variables arrive as they are; `reasoning_effort` is one too, and gives way to what was named itself."""
    wire = {"messages": [{"role": "user", "content": "Hi"}]} | fields
    assert decode(wire, "x").request.template_kwargs == kwargs


def test_how_the_answer_is_wanted() -> None:
    """Stream, its usage chunk and the number of choices are the caller's choice."""
    wire = {"messages": [{"role": "user", "content": "Hi"}], "stream": True}
    call = decode(wire, "x")
    assert (call.is_stream, call.has_usage, call.request.num_choices) == (True, False, 1)
    call = decode(wire | {"stream_options": {"include_usage": True}, "n": 16}, "x")
    assert (call.is_stream, call.has_usage, call.request.num_choices) == (True, True, 16)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FIELDS = [
    *("model", "messages", "stream", "stream_options", "tools", "tool_choice", "n", "max_tokens", "temperature"),
    *("stop", "seed", "logit_bias", "response_format", "top_k", "parallel_tool_calls", "logprobs", "top_logprobs"),
    *("guided_json", "structured_outputs", "json_schema", "chat_template_kwargs", "reasoning_effort"),
]
MESSAGE_FIELDS = ["role", "content", "name", "tool_calls", "tool_call_id", "reasoning", "type", "text", "image_url"]


# The first text drawn on a machine builds hypothesis' table of characters: seconds, when the machine is busy.
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from(FIELDS), json_values, max_size=4),
    st.lists(
        st.dictionaries(st.sampled_from(MESSAGE_FIELDS), json_values, max_size=4)
        | st.fixed_dictionaries(
            {"role": st.sampled_from(["user", "assistant", "tool"]), "content": json_values, "tool_calls": json_values}
        ),
        max_size=2,
    ),
)
def test_no_json_makes_decoding_fail_otherwise(fields: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    """Whatever the JSON holds, the outcome is a request or an `InvalidRequest`, never another exception."""
    with contextlib.suppress(InvalidRequest):
        decode({"messages": messages} | fields, "x")
