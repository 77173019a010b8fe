"""Shapes of Anthropic's requests. `content_parts.py` reads content blocks, `fields.py` says what becomes of fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from periscope.api.thinking import ThinkingWire
from periscope.api.validation import Effort, Name, Whole, Wire


class MessageWire(Wire):
    """One message; `content` is checked once the role is known."""

    role: str
    content: Any = None


class ToolWire(Wire):
    """One entry of `tools`. One with a `type` other than `custom` is defined by Anthropic, and has no schema."""

    type: str | None = None
    name: Name | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None


class ToolChoiceWire(Wire):
    """`tool_choice`: whether a tool is called, and which."""

    type: str
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class FormatWire(Wire):
    """`output_config.format`: the schema that the answer has to fit."""

    type: str
    schema_: dict[str, Any] = Field(alias="schema")


class OutputConfigWire(Wire):
    """`output_config`: the format and the effort of the answer."""

    effort: Effort | None = None
    format: FormatWire | None = None


class PromptWire(Wire):
    """The body of POST /v1/messages/count_tokens: all that the prompt is made of.

    `output_format` is the beta's name of `output_config.format`.
    """

    model: str | None = None
    messages: Annotated[list[MessageWire], Field(min_length=1)]
    system: Any = None
    tools: list[ToolWire] | None = None
    tool_choice: ToolChoiceWire | None = None
    thinking: ThinkingWire | None = None
    output_config: OutputConfigWire | None = None
    output_format: FormatWire | None = None


class MessagesWire(PromptWire):
    """The body of POST /v1/messages."""

    max_tokens: Whole
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: Whole | None = None
