"""What clients of Anthropic's API send, as the core's request; and what is refused, by the field's name."""

from __future__ import annotations

import json
from typing import Any

import pytest

from periscope.api.anthropic.decode import decode, decode_prompt
from periscope.core import (
    FilePart,
    GenerationParams,
    ImagePart,
    Message,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.errors import InvalidRequest

PNG = "data:image/png;base64,AAAA"
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
PDF = {
    "type": "document",
    "title": "a.pdf",
    "source": {"type": "base64", "media_type": "application/pdf", "data": "JV"},
}
TOOL = {"name": "read", "description": "Reads.", "input_schema": {"type": "object", "required": None}}
USE = {"type": "tool_use", "id": "toolu_1", "name": "read", "input": {"path": "a"}}
CACHED = {"cache_control": {"type": "ephemeral"}}
ASKED = Message(Role.USER, (TextPart("Hi"),))
CALLED = Message(Role.ASSISTANT, (), tool_calls=(ToolCall("toolu_1", "read", '{"path": "a"}'),))


def call_of(*messages: dict[str, Any], **fields: Any) -> Any:
    return decode({"model": "m", "max_tokens": 9, "messages": list(messages or [said("user", "Hi")])} | fields, "msg_1")


def said(role: str, *content: Any) -> dict[str, Any]:
    is_text = len(content) == 1 and isinstance(content[0], str)
    return {"role": role, "content": content[0] if is_text else list(content)}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words} | CACHED


def result(*content: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "toolu_1", "content": list(content)} | CACHED | fields


def test_the_fields_of_sampling_and_of_the_prompt() -> None:
    """Each has its place in the core's request; what concerns only Anthropic's accounts has none, and no log line."""
    call = call_of(
        system=[text("Be brief."), text("Be kind.")],
        stream=True,
        temperature=0.5,
        top_p=0.9,
        top_k=20,
        stop_sequences=["\n\n"],
        metadata={"user_id": "u"},
        service_tier="auto",
        context_management={"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    )
    assert call.request.id == "msg_1"
    assert call.request.model == "m"
    assert call.is_stream
    assert call.request.params == GenerationParams(max_tokens=9, temperature=0.5, top_p=0.9, top_k=20, stop=("\n\n",))
    assert call.request.messages == (Message(Role.SYSTEM, (TextPart("Be brief."), TextPart("Be kind."))), ASKED)
    assert call.unused == ()


HISTORY = [
    said("user", text("Look:"), IMAGE, PDF),
    said(
        "assistant",
        {"type": "thinking", "thinking": "Hm.", "signature": "abc"},
        {"type": "redacted_thinking", "data": "xyz"},
        text("I read."),
        USE,
    ),
    said("user", result(text("A picture:"), IMAGE), text("Go on.")),
]


def test_a_conversation_with_tools_images_and_thinking() -> None:
    """Results become messages of their own, with their images; reasoning comes back, signed or not."""
    asked, answered, read, more = call_of(*HISTORY).request.messages
    image = ImagePart(PNG, "messages[0].content[1]")
    document = FilePart("messages[0].content[2]", "a.pdf", url="data:application/pdf;base64,JV")
    assert asked == Message(Role.USER, (TextPart("Look:"), image, document))
    assert answered == Message(Role.ASSISTANT, (TextPart("I read."),), CALLED.tool_calls, reasoning="Hm.")
    shown = ImagePart(PNG, "messages[2].content[0].content[1]")
    assert read == Message(Role.TOOL, (TextPart("A picture:"), shown), tool_call_id="toolu_1")
    assert more == Message(Role.USER, (TextPart("Go on."),))


RESULTS: dict[str, tuple[dict[str, Any], tuple[TextPart, ...]]] = {
    "text": ({"content": "done"}, (TextPart("done"),)),
    "nothing": ({"content": None}, ()),
    "a failure": ({"content": "no file", "is_error": True}, (TextPart("The tool call failed."), TextPart("no file"))),
    "a tool that was found": (
        {"content": [{"type": "tool_reference", "tool_name": "mcp__maps"}]},
        (TextPart("The tool mcp__maps can be called."),),
    ),
    "search results": (
        {"content": [{"type": "search_result", "source": "s.md", "title": "S", "content": [text("Words.")]}]},
        (TextPart("S (s.md)\nWords."),),
    ),
}


@pytest.mark.parametrize("kind", RESULTS)
def test_a_tool_s_result(kind: str) -> None:
    """The model reads what came back, and that it is a failure."""
    fields, parts = RESULTS[kind]
    *_, read = call_of(said("user", "Hi"), said("assistant", USE), said("user", result(**fields))).request.messages
    assert read == Message(Role.TOOL, parts, tool_call_id="toolu_1")


def test_instructions_within_the_conversation_keep_its_beginning() -> None:
    """Chat templates move system messages to the front, which would change the prompt from there on."""
    use, read = said("assistant", USE), said("user", result(text("done")))
    reminder = [TextPart("<system-reminder>"), TextPart("Be brief."), TextPart("</system-reminder>")]
    before = call_of(said("system", "First."), said("user", "Hi"), use, read, system="Zeroth.").request.messages
    assert before[:2] == (Message(Role.SYSTEM, (TextPart("Zeroth."),)), Message(Role.SYSTEM, (TextPart("First."),)))
    after = call_of(
        said("system", "First."), said("user", "Hi"), use, read, said("system", text("Be brief.")), system="Zeroth."
    ).request.messages
    assert after == (*before, Message(Role.USER, tuple(reminder)))

    within = call_of(said("user", "Hi"), said("system", "Be brief."), said("assistant", "Yes"), said("user", "And?"))
    assert within.request.messages[0] == Message(Role.USER, (TextPart("Hi"), *reminder))


def test_a_system_message_without_content_says_nothing() -> None:
    """Claude Code sends some that only set the effort."""
    assert call_of(said("user", "Hi"), {"role": "system", "effort": "low"}).request.messages == (ASKED,)


def test_what_anthropic_s_own_tools_answered_is_read_as_text() -> None:
    """A conversation that began at Anthropic's API goes on here."""
    found = {"type": "web_search_result", "title": "Oslo", "url": "https://o.example", "encrypted_content": "xyz"}
    answered = said(
        "assistant",
        {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "Oslo"}},
        {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": [found]},
        text("It is a city."),
    )
    message = call_of(said("user", "Hi"), answered, said("user", "And?")).request.messages[1]
    assert message.text == ('[web_search was called with {"query": "Oslo"}]\nOslo\nhttps://o.example\nIt is a city.')


WEB_SEARCH = {"type": "web_search_20250305", "name": "web_search", "max_uses": 8}
CHOICES: dict[str, tuple[Any, ToolChoice]] = {
    "none given": (None, ToolChoice()),
    "auto": ({"type": "auto"}, ToolChoice()),
    "any": ({"type": "any"}, ToolChoice(ToolChoiceMode.REQUIRED)),
    "tool": ({"type": "tool", "name": "read"}, ToolChoice(ToolChoiceMode.REQUIRED, "read")),
    "none": ({"type": "none"}, ToolChoice(ToolChoiceMode.NONE)),
    "one at a time": ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(is_parallel=False)),
}


@pytest.mark.parametrize("kind", CHOICES)
def test_tools_and_whether_to_call_them(kind: str) -> None:
    """Those that Anthropic runs are left out, with a line in the log; the rest are offered, also deferred ones."""
    asked, choice = CHOICES[kind]
    deferred = {"name": "maps", "input_schema": {"type": "object"}, "defer_loading": True, "strict": True, **CACHED}
    call = call_of(tools=[WEB_SEARCH, TOOL | {"type": "custom"}, deferred], tool_choice=asked)
    offered = (Tool("read", "Reads.", {"type": "object"}), Tool("maps", "", {"type": "object"}, is_strict=True))
    assert call.request.output.tools == (() if kind == "none" else offered)
    assert call.request.output.tool_choice == choice
    assert call.unused == ("tools[0] (web_search_20250305)",)


@pytest.mark.parametrize(
    ("kind", "name", "arguments"),
    [
        ("bash_20250124", "bash", {"command", "restart"}),
        ("text_editor_20250728", "str_replace_based_edit_tool", {"command", "path", "old_str", "new_str"}),
        ("memory_20250818", "memory", {"command", "path", "old_path", "new_path"}),
    ],
)
def test_tools_that_anthropic_defines_and_the_client_runs_have_their_schemas(
    kind: str, name: str, arguments: set[str]
) -> None:
    """The request names only the type; Anthropic's models know the rest by heart, others read it."""
    call = call_of(tools=[{"type": kind, "name": name}], tool_choice={"type": "tool", "name": name})
    (tool,) = call.request.output.tools
    assert tool.name == name
    assert arguments <= set(tool.parameters["properties"])
    assert call.unused == ()


@pytest.mark.parametrize(
    ("thinking", "is_on", "is_shown"),
    [
        (None, False, False),
        ({"type": "disabled"}, False, False),
        ({"type": "between_tools"}, False, False),
        ({"type": "enabled", "budget_tokens": 2048}, True, True),
        ({"type": "adaptive"}, True, True),
        ({"type": "adaptive", "display": "omitted"}, True, False),
    ],
)
def test_thinking_is_switched_on_and_off(thinking: Any, *, is_on: bool, is_shown: bool) -> None:
    """As at Anthropic's API: without the field the model does not think, if its template has a switch."""
    call = call_of(thinking=thinking, output_config={"effort": "max"})
    assert call.request.template_kwargs == {"enable_thinking": is_on, "reasoning_effort": "max"}
    assert call.shows_thinking == is_shown


@pytest.mark.parametrize(
    ("thinking", "effort", "budget"),
    [
        (None, "low", None),
        ({"type": "disabled", "budget_tokens": 5}, None, 0),
        ({"type": "enabled", "budget_tokens": 2048}, "low", 2048),
        ({"type": "enabled"}, "low", 1024),
        ({"type": "enabled"}, None, None),
        ({"type": "enabled", "budget_tokens": 0}, None, 0),
        ({"type": "adaptive", "budget_tokens": 0}, None, None),
        ({"type": "adaptive", "budget_tokens": 0}, "medium", 8192),
    ],
)
def test_thinking_is_bounded(thinking: Any, effort: str | None, budget: int | None) -> None:
    """By its number, else by the effort; where the model decides for itself, a 0 is no number."""
    call = call_of(thinking=thinking, output_config={"effort": effort})
    assert call.request.params.thinking_budget == budget


@pytest.mark.parametrize("name", ["output_config", "output_format"])
def test_an_answer_s_schema(name: str) -> None:
    """Under its name and under the beta's."""
    form = {"type": "json_schema", "schema": {"type": "object", "properties": None}}
    call = call_of(**{name: {"format": form} if name == "output_config" else form})
    place = "output_config.format" if name == "output_config" else name
    assert call.request.output.response_format == ResponseFormat(
        {"type": "object", "properties": {}}, f"{place}.schema"
    )


def test_unknown_fields_are_taken_and_named_for_the_log() -> None:
    """A newer client works with this server; whoever reads the log sees what it asked for in vain."""
    call = call_of(new_feature={"on": True}, thinking={"type": "enabled", "budget_tokens": 1024})
    assert call.unused == ("new_feature",)


HI = said("user", "Hi")
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": None}, "max_tokens"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": [HI, said("assistant", text("It is"), USE)]}, "messages[1]"),
    ({"messages": [said("assistant", "")]}, "messages[0]"),
    ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
    ({"messages": [said("user", {"type": "hologram"})]}, "messages[0].content[0]"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
    ({"messages": [said("user", IMAGE | {"source": {"type": "blob"}})]}, "messages[0].content[0].source.type"),
    ({"system": 3}, "system"),
    ({"stop_sequences": [""]}, "stop_sequences"),
    ({"stop_sequences": ["x"] * 17}, "stop_sequences"),
    ({"temperature": 3}, "temperature"),
    ({"tools": [WEB_SEARCH]}, "tools[0].type"),
    ({"tools": [{"input_schema": {}}]}, "tools[0].name"),
    ({"tools": [TOOL, TOOL]}, "tools[1].name"),
    ({"tools": [TOOL, WEB_SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "tool"}}, "tool_choice.name"),
    ({"tools": [TOOL], "tool_choice": {"type": "maybe"}}, "tool_choice.type"),
    ({"tool_choice": {"type": "any"}}, "tool_choice"),
    ({"thinking": {"type": "deep"}}, "thinking.type"),
    ({"output_config": {"effort": "most"}}, "output_config.effort"),
    ({"output_config": {"format": {"type": "xml", "schema": {}}}}, "output_config.format.type"),
    ({"mcp_servers": [{"type": "url", "url": "https://m.example", "name": "m"}]}, "mcp_servers"),
    ({"container": {"skills": [{"skill_id": "pptx"}]}}, "container"),
]


@pytest.mark.parametrize(("fields", "param"), REFUSED, ids=[json.dumps(fields)[:60] for fields, _ in REFUSED])
def test_what_cannot_be_done_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    """The error names the field as the client wrote it."""
    with pytest.raises(InvalidRequest) as refusal:
        call_of(**fields)
    assert refusal.value.param == param
    assert param in refusal.value.message


def test_an_answer_that_the_client_has_begun_goes_on() -> None:
    """Its words stay as they are, thoughts among them; an empty one is a new turn; the count is of the same prompt."""
    begun = call_of(said("user", "Hi"), said("assistant", "It is ")).request
    assert begun.continues
    assert begun.messages == (ASKED, Message(Role.ASSISTANT, (TextPart("It is "),)))
    thought = call_of(said("user", "Hi"), said("assistant", {"type": "thinking", "thinking": "Hm", "signature": "s"}))
    assert thought.request.continues
    assert thought.request.messages[-1].reasoning == "Hm"
    empty = call_of(said("user", "Hi"), said("assistant", "")).request
    assert (empty.continues, empty.messages) == (False, (ASKED,))
    counted = decode_prompt({"model": "m", "messages": [said("user", "Hi"), said("assistant", "It is ")]}, "count_1")
    assert (counted.continues, counted.messages) == (True, begun.messages)
