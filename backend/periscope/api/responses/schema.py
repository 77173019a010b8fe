"""Shapes of requests to `/v1/responses`. `items.py` reads input items, `unsupported.py` refuses fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from periscope.api import thinking
from periscope.api.validation import EXPECTED, Name, Whole, Wire


def _tool_choice(value: Any) -> Any:
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"type": value}
    raise PydanticCustomError(EXPECTED, "`none`, `auto`, `required` or an object that names a tool")


def _truncation(value: Any) -> Any:
    if value in (None, "auto", "disabled"):
        return value
    raise PydanticCustomError(EXPECTED, "`auto` or `disabled`")


def _input(value: Any) -> Any:
    if isinstance(value, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": value}]}]
    if value is None or isinstance(value, list):
        return value
    raise PydanticCustomError(EXPECTED, "a text or a list of items")


def _stops(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class CustomFormatWire(Wire):
    """The `format` of a custom tool."""

    type: str
    syntax: str | None = None
    definition: str | None = None


class ToolWire(Wire):
    """One entry of `tools`: a function, a custom tool, a namespace of both, an MCP server, or a tool that OpenAI runs.

    `mcp_tools.py` reads the fields of an MCP server.
    """

    type: str
    name: Name | None = None
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    format: CustomFormatWire | None = None
    tools: list[ToolWire] | None = None


class ToolChoiceWire(Wire):
    """`tool_choice`; a bare string stands for an object with only this `type`."""

    type: str
    name: Name | None = None
    namespace: str | None = None
    server_label: str | None = None
    mode: str | None = None
    tools: list[dict[str, Any]] | None = None


class FormatWire(Wire):
    """`text.format`. The schema is always enforced, whatever `strict` says."""

    type: str
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class TextWire(Wire):
    """`text`: the format and the verbosity of the answer."""

    format: FormatWire | None = None
    verbosity: Any = None


class ReasoningWire(thinking.ReasoningWire):
    """`reasoning`; `generate_summary` is the old name of `summary`."""

    summary: str | None = None
    generate_summary: str | None = None


class PromptWire(thinking.ThinkingFields):
    """The body of POST /v1/responses/input_tokens: all that the prompt is made of."""

    model: str | None = None
    input: Annotated[
        list[dict[str, Any]] | None, BeforeValidator(_input, json_schema_input_type=str | list[dict[str, Any]] | None)
    ] = None
    instructions: str | None = None
    previous_response_id: str | None = None
    tools: list[ToolWire] | None = None
    tool_choice: Annotated[
        ToolChoiceWire | None, BeforeValidator(_tool_choice, json_schema_input_type=str | ToolChoiceWire | None)
    ] = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningWire | None = None
    text: TextWire | None = None
    truncation: Annotated[str | None, BeforeValidator(_truncation)] = None


class ResponsesWire(PromptWire):
    """The body of POST /v1/responses.

    The sampling fields from `top_k` on are beyond OpenAI's, and so is all that bounds thinking but `reasoning`.
    """

    stream: bool | None = None
    store: bool | None = None
    include: list[str] | None = None
    metadata: dict[str, Any] | None = None
    max_output_tokens: Whole | None = None
    max_tool_calls: Whole | None = None
    top_logprobs: Whole | None = None
    temperature: float | None = None
    top_p: float | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    user: str | None = None

    top_k: Whole | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: Whole | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_stops)] = None
