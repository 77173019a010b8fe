"""Shapes of OpenAI requests. `content.py` reads content parts, `fields.py` says what becomes of fields."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from periscope.api.thinking import ThinkingFields
from periscope.api.validation import EXPECTED, Name, Whole, Wire, as_whole


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


def _tool_choice(value: Any) -> Any:
    if value is None or isinstance(value, dict):
        return value
    if isinstance(value, str):
        return {"type": value}
    raise PydanticCustomError(EXPECTED, "`none`, `auto`, `required` or an object that names tools")


def _no_limit(value: Any) -> Any:
    """None for -1, which clients of vLLM, llama.cpp and Ollama send for no limit."""
    value = as_whole(value)
    return None if value == -1 else value


def _top_k(value: Any) -> Any:
    """0 for -1: vLLM switches it off with -1, llama.cpp and this server with 0."""
    value = as_whole(value)
    return 0 if value == -1 else value


class FunctionCallWire(Wire):
    """A call in an assistant's message. Its name may be invalid. Some clients send the arguments as an object."""

    name: str | None = None
    arguments: Annotated[Any, BeforeValidator(_arguments, json_schema_input_type=str | dict[str, Any] | None)] = None


class CustomCallWire(Wire):
    """A call of a custom tool in an assistant's message."""

    name: str | None = None
    input: str | None = None


class ToolCallWire(Wire):
    """One entry of an assistant message's `tool_calls`. A call of a custom tool has no `function`."""

    id: str | None = None
    type: str | None = None
    function: FunctionCallWire | None = None
    custom: CustomCallWire | None = None


class MessageWire(Wire):
    """One message of any role; `content` is checked once the role is known.

    Reasoning comes back under the name that its server gave it: `reasoning_details` is OpenRouter's, `thinking_blocks`
    LiteLLM's. `tool_name` is Ollama's `name` of a tool message, and `function_call` the call of a client that sends
    `functions`. `prefix` (DeepSeek's and Mistral's) and `partial` (Moonshot's and Qwen's) say that the answer goes on
    with this message.
    """

    role: str
    content: Any = None
    name: str | None = None
    tool_name: str | None = None
    tool_calls: list[ToolCallWire] | None = None
    tool_call_id: str | None = None
    function_call: FunctionCallWire | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: str | None = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    prefix: bool | None = None
    partial: bool | None = None


class FunctionWire(Wire):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class CustomGrammarWire(Wire):
    """The grammar of a custom tool's `format`."""

    syntax: str
    definition: str


class CustomFormatWire(Wire):
    """The `format` of a custom tool."""

    type: str
    grammar: CustomGrammarWire | None = None


class CustomToolWire(Wire):
    """A tool whose calls hold a text."""

    name: Name
    description: str | None = None
    format: CustomFormatWire | None = None


class ToolWire(Wire):
    """One entry of `tools`. Tools of other types than `function` and `custom` have fields that are not read."""

    type: str
    function: FunctionWire | None = None
    custom: CustomToolWire | None = None


class NamedToolWire(Wire):
    """A tool that a `tool_choice` names."""

    name: Name


class ToolReferenceWire(Wire):
    """A tool among those that a `tool_choice` allows."""

    type: str
    function: NamedToolWire | None = None
    custom: NamedToolWire | None = None


class AllowedToolsWire(Wire):
    """`tool_choice.allowed_tools`: which of the tools may be called."""

    mode: str
    tools: list[ToolReferenceWire]


class ToolChoiceWire(ToolReferenceWire):
    """`tool_choice`; a bare string stands for an object with only this `type`."""

    allowed_tools: AllowedToolsWire | None = None


class JSONSchemaWire(Wire):
    """`response_format.json_schema`. The schema is always enforced, whatever `strict` says."""

    schema_: dict[str, Any] = Field(alias="schema")
    name: str | None = None
    description: str | None = None
    strict: bool | None = None


class ResponseFormatWire(Wire):
    """`response_format`; a `schema` beside `json_object` is llama.cpp's."""

    type: str
    json_schema: JSONSchemaWire | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")


class StructuredOutputsWire(Wire):
    """vLLM's `structured_outputs`; `structural_tag` is not supported."""

    json_: dict[str, Any] | None = Field(None, alias="json")
    json_object: bool | None = None
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None


class StreamOptionsWire(Wire):
    """`stream_options`: what a stream holds besides the answer."""

    include_usage: bool | None = None


class GenerationWire(Wire):
    """The fields that chat completions and completions share, with those that vLLM, llama.cpp and mlx-lm take."""

    model: str | None = None
    stream: bool | None = None
    stream_options: StreamOptionsWire | None = None
    n: Whole | None = None

    response_format: ResponseFormatWire | None = None
    guided_json: dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    grammar: str | None = None
    structured_outputs: StructuredOutputsWire | None = None
    json_schema: dict[str, Any] | None = None

    temperature: float | None = None
    top_p: float | None = None
    top_k: Annotated[int | None, BeforeValidator(_top_k)] = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: Annotated[int | None, BeforeValidator(_no_limit)] = None
    stop: Annotated[list[str] | None, BeforeValidator(_stop_list, json_schema_input_type=str | list[str] | None)] = None
    stop_token_ids: list[int] | None = None
    min_tokens: Whole | None = None
    ignore_eos: bool | None = None
    logit_bias: dict[str, Any] | None = None


class PredictionWire(Wire):
    """`prediction`: a text that the answer is likely to repeat."""

    type: str
    content: Any = None


class ChatCompletionWire(GenerationWire, ThinkingFields):
    """The body of POST /v1/chat/completions."""

    messages: Annotated[list[MessageWire], Field(min_length=1)]
    tools: list[ToolWire] | None = None
    tool_choice: Annotated[
        ToolChoiceWire | None, BeforeValidator(_tool_choice, json_schema_input_type=str | ToolChoiceWire | None)
    ] = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionWire] | None = None
    function_call: Any = None
    continue_final_message: bool | None = None
    add_generation_prompt: bool | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    max_tokens: Annotated[int | None, BeforeValidator(_no_limit)] = None
    max_completion_tokens: Annotated[int | None, BeforeValidator(_no_limit)] = None
    logprobs: bool | None = None
    top_logprobs: Whole | None = None
    prediction: PredictionWire | None = None


class CompletionWire(GenerationWire):
    """The body of POST /v1/completions. `prompt` is read by `prompts.py`."""

    prompt: Any
    suffix: str | None = None
    max_tokens: Whole | None = None
    logprobs: Whole | None = None
    echo: bool | None = None
    best_of: Whole | None = None
    add_special_tokens: bool | None = None
