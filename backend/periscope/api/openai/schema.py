"""Shapes of OpenAI requests. Content parts are looked at in `content.py`, refused fields in `unsupported.py`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from periscope.api.validation import EXPECTED, Wire


def _stop_list(value: Any) -> Any:
    if value is None or isinstance(value, list):
        return value
    if isinstance(value, str):
        return [value]
    raise PydanticCustomError(EXPECTED, "a string or a list of strings")


def _arguments(value: Any) -> Any:
    if value is None or isinstance(value, (str, dict)):
        return value
    raise PydanticCustomError(EXPECTED, "the JSON text of an object")


Name = Annotated[str, Field(min_length=1)]


class FunctionCallWire(Wire):
    """A call the assistant made. Some clients send the arguments as the object itself."""

    name: Name
    arguments: Annotated[Any, BeforeValidator(_arguments)] = None


class ToolCallWire(Wire):
    """One entry of an assistant message's `tool_calls`."""

    id: Name
    type: str | None = None
    function: FunctionCallWire


class MessageWire(Wire):
    """One message of any role; `content` is anything until its role is known."""

    role: str
    content: Any = None
    name: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None


class FunctionWire(Wire):
    """A function the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolWire(Wire):
    """One entry of `tools`."""

    type: str
    function: FunctionWire | None = None


class StreamOptionsWire(Wire):
    """`stream_options`."""

    include_usage: bool | None = None


class ChatCompletionWire(Wire):
    """The body of POST /v1/chat/completions, with the sampling params beyond OpenAI's that vLLM and mlx-lm take."""

    model: str | None = None
    messages: Annotated[list[MessageWire], Field(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptionsWire | None = None
    tools: list[ToolWire] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    n: int | None = None

    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: Annotated[list[str] | None, BeforeValidator(_stop_list)] = None
