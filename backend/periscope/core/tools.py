"""Tools, forced output, and how a model marks them in its output."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final, TypeAlias

from periscope.errors import InvalidRequest

JSONObject: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call.

    Attributes:
        parameters: a JSON schema (an object schema).
        is_strict: a call's arguments must fit it even if the model is free to call or not.
        strict_by: the field of the request that says so, for errors.
    """

    name: str
    description: str = ""
    parameters: JSONObject = field(default_factory=dict)
    is_strict: bool = False
    strict_by: str = "strict"


class ToolChoiceMode(StrEnum):
    """Whether the model may, must not or must call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """The client's choice about tool calls.

    Attributes:
        name: with `REQUIRED`, the one tool that must be called; None = any of those offered.
        is_parallel: several calls in one answer are allowed.
        allowed: names of the tools that may be called now. The others stay in the prompt, so that its beginning is the
            same in every turn. None = all may.

    Raises:
        InvalidRequest: no tool is allowed.
    """

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str | None = None
    is_parallel: bool = True
    allowed: frozenset[str] | None = None

    def __post_init__(self) -> None:
        if self.allowed is not None and not self.allowed:
            raise InvalidRequest("`tool_choice` allows no tool: name one, or set it to none.", param="tool_choice")

    def allows(self, tool: Tool) -> bool:
        """Whether it may be called."""
        return self.allowed is None or tool.name in self.allowed


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The answer must be JSON of this schema, whatever the model would rather write; or calls, where tools are offered.

    Attributes:
        schema: a JSON schema; `{"type": "object"}` for any object.
        param: where the schema stands in the request, for errors (`response_format.json_schema.schema`).
    """

    schema: JSONObject
    param: str = "response_format"


#: Characters of a grammar, a regular expression, or all choices together: about a tenth of a second of reading.
MAX_GRAMMAR_CHARS: Final = 65_536


@dataclass(frozen=True, slots=True)
class AnswerGrammar:
    """The answer must be a text that fits: one of several, a regular expression, or a grammar. One of them is set.

    Attributes:
        choices: the texts, one of which is the answer.
        regex: matches the whole answer.
        grammar: in llguidance's dialect of Lark, or in llama.cpp's GBNF.
        param: where it stands in the request, for errors.

    Raises:
        InvalidRequest: it is empty or longer than `MAX_GRAMMAR_CHARS`.
    """

    choices: tuple[str, ...] = ()
    regex: str = ""
    grammar: str = ""
    param: str = "response_format"

    def __post_init__(self) -> None:
        num_chars = sum(map(len, (*self.choices, self.regex, self.grammar)))
        if not num_chars:
            raise InvalidRequest(f"`{self.param}` is empty: nothing would fit it.", param=self.param)
        if num_chars > MAX_GRAMMAR_CHARS:
            raise InvalidRequest(
                f"`{self.param}` has {num_chars} characters; at most {MAX_GRAMMAR_CHARS} are taken. Make it smaller.",
                param=self.param,
            )


#: (text between the markers, tools) -> call or calls, each `{"name": ..., "arguments": ...}`. Tools arrive as
#: `{"type": "function", "function": {...}}`, the shape chat templates and mlx-lm's parsers read. May raise
#: anything: the text comes from a model.
ParseToolCall: TypeAlias = Callable[[str, list[JSONObject]], JSONObject | list[JSONObject]]


class ToolCallStyle(StrEnum):
    """The family of syntaxes a model writes its tool calls in.

    Attributes:
        MARKED: between `tool_start` and `tool_end`, in a syntax that only `parse_tool_call` knows.
        HERMES: marked, with JSON between the markers. Each call is exactly `tool_start`, a newline,
            `{"name": <name>, "arguments": <object>}`, a newline, `tool_end`; a newline between two calls.
            Without `tool_end` it is `tool_start` and an array of such objects.
        MISTRAL: each call is `tool_start`, the name, `[ARGS]`, an object. HERMES's array is read, too.
        LLAMA: `{"name": <name>, "parameters": <object>}` as the whole answer or after `<|python_tag|>`.
        HARMONY: channels of gpt-oss; they carry the reasoning too.
        ARRAY: `[{"name": <name>, "arguments": <object>}, ...]` as the whole answer: a model without tool calls of its
            own that is constrained to call.
    """

    MARKED = "marked"
    HERMES = "hermes"
    MISTRAL = "mistral"
    LLAMA = "llama"
    HARMONY = "harmony"
    ARRAY = "array"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How one model marks reasoning and tool calls in its output.

    Attributes:
        think_start, think_end: around reasoning. Without `think_end` the model has none. A `think_end` that
            was never opened is ordinary text.
        tool_start, tool_end: around tool calls. Without `tool_end` a call runs to the end of the completion.
        parse_tool_call: parses the text between the tool markers; None = marked tool calls stay text.
        tool_call_style: `LLAMA` and `HARMONY` need no markers and no `parse_tool_call`.
        starts_in_reasoning: the chat template has already written `think_start`.
        continues_text: the prompt ends within the text of the reasoning or of the answer, and the completion goes on
            with it: whitespace that it begins with is part of that text.
        is_constrained: a grammar constrains the calls and the text between them.
    """

    think_start: str | None = None
    think_end: str | None = None
    tool_start: str | None = None
    tool_end: str | None = None
    parse_tool_call: ParseToolCall | None = None
    tool_call_style: ToolCallStyle = ToolCallStyle.MARKED
    starts_in_reasoning: bool = False
    continues_text: bool = False
    is_constrained: bool = False

    @property
    def has_tools(self) -> bool:
        """Whether the model's own tool calls can be read."""
        if self.tool_call_style in (ToolCallStyle.LLAMA, ToolCallStyle.HARMONY):
            return True
        return bool(self.tool_start) and self.parse_tool_call is not None

    def constrained(self) -> OutputFormat:
        """The format if a grammar constrains the model's calls.

        It is the model's own syntax if a grammar can express it. If only `parse_tool_call` knows the syntax, calls are
        JSON between the model's own markers, as in `ToolCallStyle.HERMES`. A model without tools writes a bare array,
        as in `ToolCallStyle.ARRAY`. Reasoning may come before any of them.
        """
        if not self.has_tools:
            return replace(self, tool_call_style=ToolCallStyle.ARRAY, is_constrained=True)
        if self.tool_call_style is ToolCallStyle.MARKED:
            style = ToolCallStyle.HERMES
            return replace(self, tool_call_style=style, parse_tool_call=_read_json, is_constrained=True)
        return replace(self, is_constrained=True)


def _read_json(text: str, _tools: list[JSONObject]) -> Any:
    return json.loads(text)
