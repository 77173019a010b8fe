"""The shapes of JSON answers, for the OpenAPI document alone: what `encode.py` and its siblings write.

A test holds real answers against them, so that neither side changes without the other. An answer has no fields but
those of its shape.
"""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on

from periscope.core import DefaultParam, VisionUsage

# --- errors -----------------------------------------------------------------------------------------------------------


class OpenAIErrorFacts(TypedDict):
    message: str
    type: str
    param: str | None
    code: str
    retry_after: NotRequired[int]


class OpenAIError(TypedDict):
    error: OpenAIErrorFacts


class AnthropicErrorFacts(TypedDict):
    type: str
    message: str
    code: str
    param: NotRequired[str]
    retry_after: NotRequired[int]


class AnthropicError(TypedDict):
    type: Literal["error"]
    error: AnthropicErrorFacts
    request_id: str | None


# --- OpenAI -----------------------------------------------------------------------------------------------------------


class CachedTokens(TypedDict):
    cached_tokens: int


class ReasoningTokens(TypedDict):
    reasoning_tokens: int


class CompletionTokens(ReasoningTokens):
    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class OpenAIUsage(TypedDict):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: CachedTokens
    completion_tokens_details: CompletionTokens


class Extension(TypedDict):
    """What is this server's own in an answer."""

    vision: VisionUsage


class CalledFunction(TypedDict):
    name: str
    arguments: str


class CalledTool(TypedDict):
    id: str
    type: Literal["function"]
    function: CalledFunction


class CalledText(TypedDict):
    name: str
    input: str


class CalledCustomTool(TypedDict):
    id: str
    type: Literal["custom"]
    custom: CalledText


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: str | None
    refusal: None
    reasoning_content: NotRequired[str]
    tool_calls: NotRequired[list[CalledTool | CalledCustomTool]]


class LikelyToken(TypedDict):
    token: str
    logprob: float
    bytes: list[int]


class ChosenToken(LikelyToken):
    top_logprobs: list[LikelyToken]


class ChatLogprobs(TypedDict):
    content: list[ChosenToken]
    refusal: None


class ChatChoice(TypedDict):
    index: int
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls"]


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: OpenAIUsage
    periscope: NotRequired[Extension]


class TextLogprobs(TypedDict):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(TypedDict):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: Literal["stop", "length"]


class TextCompletion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: OpenAIUsage


class EmbeddingUsage(TypedDict):
    prompt_tokens: int
    total_tokens: int


class Embedding(TypedDict):
    """`embedding` is the base64 of its float32 numbers if the request asks for that."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(TypedDict):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


class ContextSizes(TypedDict):
    n_ctx: int | None
    n_ctx_train: int | None


class ModelCapabilities(TypedDict):
    vision: Literal["none", "proxy", "native"]
    tools: bool | None
    reasoning: bool | None
    batched: bool | None


class ModelArchitecture(TypedDict):
    input_modalities: list[str]
    output_modalities: list[str]


class ModelStateValue(TypedDict):
    value: str


class OpenAIModel(TypedDict):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    aliases: list[str]
    context_length: int | None
    max_model_len: int | None
    context_window: int | None
    max_context_length: int | None
    meta: ContextSizes
    kind: str
    embedding_size: int | None
    kv_bits: int | None
    capabilities: ModelCapabilities
    input_modalities: list[str]
    sampling: dict[str, DefaultParam]
    architecture: ModelArchitecture
    loaded: bool
    state: str
    error: str | None
    status: ModelStateValue


class OpenAIModels(TypedDict):
    """`models` is Codex's catalogue, for clients that send `client_version`."""

    object: Literal["list"]
    data: list[OpenAIModel]
    models: NotRequired[list[dict[str, Any]]]


class Tokenized(TypedDict):
    """The answer of `/tokenize`, in vLLM's shape."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class TokenPiece(TypedDict):
    id: int
    piece: str | list[int]


class LlamaTokenized(TypedDict):
    """llama.cpp's shape, for `content`."""

    tokens: list[int | TokenPiece]


class Detokenized(TypedDict):
    prompt: str
    content: str


# --- OpenAI's Responses -------------------------------------------------------------------------------------------


class Response(TypedDict):
    """`output` holds messages, reasoning and calls; `text`, `tool_choice` and `tools` are those of the request."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Literal["completed", "incomplete"]
    background: Literal[False]
    completed_at: float | None
    conversation: None
    error: None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    metadata: dict[str, Any]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    prompt: None
    prompt_cache_key: str | None
    reasoning: dict[str, str | None]
    safety_identifier: str | None
    service_tier: str
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float | None
    truncation: str
    usage: dict[str, Any]
    user: str | None
    periscope: NotRequired[Extension]


class InputTokens(TypedDict):
    object: Literal["response.input_tokens"]
    input_tokens: int


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


class ItemList(TypedDict):
    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


# --- Anthropic --------------------------------------------------------------------------------------------------------


class TextBlock(TypedDict):
    type: Literal["text"]
    text: str


class ThinkingBlock(TypedDict):
    type: Literal["thinking"]
    thinking: str
    signature: str


class ToolUseBlock(TypedDict):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class AnthropicUsage(TypedDict):
    input_tokens: int
    cache_creation_input_tokens: int
    cache_read_input_tokens: int
    output_tokens: int


class AnthropicMessage(TypedDict):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[TextBlock | ThinkingBlock | ToolUseBlock]
    stop_reason: Literal["end_turn", "max_tokens", "tool_use", "stop_sequence"]
    stop_sequence: str | None
    usage: AnthropicUsage
    periscope: NotRequired[Extension]


class CountedTokens(TypedDict):
    input_tokens: int


class AnthropicModel(TypedDict):
    type: Literal["model"]
    id: str
    display_name: str
    anthropic_family_tier: str
    created_at: str
    lifecycle: str
    max_input_tokens: int | None
    max_tokens: int | None
    capabilities: dict[str, Any]
    is_family_default: NotRequired[bool]


class AnthropicModels(TypedDict):
    data: list[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None
