"""The nouns every room shares: messages, parameters, output events. Frozen, plain data, no behaviour beyond checks.

Nothing here knows HTTP, MLX or Pillow. All of it may cross threads.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, TypeAlias

from periscope.errors import InvalidRequest

JSONObject: TypeAlias = dict[str, Any]


class Role(StrEnum):
    """Who speaks. A client's `developer` role is decoded as `SYSTEM`."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class VisionMode(StrEnum):
    """What happens to a request's images: refused, captioned for the text model, or shown to the model itself."""

    DISABLED = "disabled"
    PROXY = "proxy"
    NATIVE = "native"


class FinishReason(StrEnum):
    """Why a completion ended. `CANCELLED` and `ERROR` stay inside: they are never sent as a success."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    CANCELLED = "cancelled"
    ERROR = "error"


#: The reasons a client may see.
EndReason: TypeAlias = Literal[FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS]


@dataclass(frozen=True, slots=True)
class TextPart:
    """A run of text inside a message.

    Attributes:
        is_data: somebody else's words (a caption): what looks like a chat template's control token in it is not one.
    """

    text: str
    is_data: bool = False


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image as the client referred to it; nothing is fetched or decoded yet.

    Attributes:
        url: a `data:` URL, or whatever else the client sent.
        param: where it stands in the request, for errors (`messages[0].content[1]`).
    """

    url: str = field(repr=False)
    param: str


Part: TypeAlias = TextPart | ImagePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asked for. `arguments` is the JSON text as the model wrote it (an object)."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn's message. `tool_calls` only on assistant messages, `tool_call_id` only on tool messages."""

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined with newlines; image parts are left out."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The image parts in order."""
        return tuple(part for part in self.parts if isinstance(part, ImagePart))


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded picture: RGB, 8 bits a channel, upright, alpha flattened over white, at most the pixel cap.

    Attributes:
        rgb: `width * height * 3` bytes, row by row.
        width, height: of `rgb`, in pixels.
        source_width, source_height: of the picture the client sent, upright, before any downscale.
        sha256: hex digest of the bytes the client sent (not of `rgb`).
    """

    rgb: bytes = field(repr=False)
    width: int
    height: int
    source_width: int
    source_height: int
    sha256: str


#: name -> (lowest, highest); None = no bound on that side.
_BOUNDS: dict[str, tuple[float | None, float | None]] = {
    "max_tokens": (1, 2**31 - 1),
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "top_k": (0, 2**31 - 1),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.01, 10.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "seed": (-(2**63), 2**64 - 1),
    "top_logprobs": (0, 20),
}
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024
MAX_LOGIT_BIAS_ENTRIES = 1024
MAX_LOGIT_BIAS = 100.0
MAX_CHOICES = 16
_MAX_SHOWN_DIGITS = 32


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """Sampling params of one request. `None` = not asked for: the model's default, else the neutral value.

    Attributes:
        max_tokens: completion limit; None = what the context leaves.
        temperature: 0 = greedy.
        top_p, min_p: probabilities; 1 and 0 switch them off.
        top_k: 0 switches it off.
        repetition_penalty: 1 = off; counts prompt and completion (the Hugging Face meaning).
        frequency_penalty, presence_penalty: 0 = off; count the completion only (the OpenAI meaning).
        seed: the same seed, prompt and params give the same tokens, alone or in a batch.
        stop: strings matched on the decoded text; never part of the output.
        logit_bias: (token id, value added to its logit) pairs, -100 to 100; each id at most once.
        logprobs: report the log-probability of each token of the completion, under the model's own distribution
            (before penalties, bias, grammar and temperature).
        top_logprobs: report that many likeliest alternatives of each token too; needs `logprobs`.

    Raises:
        InvalidRequest: a value is out of bounds or not finite; names the field, its bounds and the value.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            _check_bounds(name, getattr(self, name), low, high)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(
                f"`stop` takes at most {MAX_STOP_STRINGS} strings, got {len(self.stop)}.", param="stop"
            )
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop):
            raise InvalidRequest(f"Each `stop` string needs 1 to {MAX_STOP_LENGTH} characters.", param="stop")
        if len(self.logit_bias) > MAX_LOGIT_BIAS_ENTRIES:
            raise InvalidRequest(
                f"`logit_bias` takes at most {MAX_LOGIT_BIAS_ENTRIES} tokens, got {len(self.logit_bias)}.",
                param="logit_bias",
            )
        for token_id, bias in self.logit_bias:
            _check_bounds("logit_bias", bias, -MAX_LOGIT_BIAS, MAX_LOGIT_BIAS)
            _check_bounds("logit_bias", token_id, 0, None)
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("`top_logprobs` needs `logprobs: true`.", param="top_logprobs")

    def over(self, defaults: GenerationParams) -> GenerationParams:
        """Pure: these params, with what was not asked for taken from `defaults`."""
        merged = {
            f.name: getattr(defaults, f.name) if getattr(self, f.name) in (None, ()) else getattr(self, f.name)
            for f in fields(self)
        }
        return GenerationParams(**merged)


def _check_bounds(name: str, value: float | None, low: float | None, high: float | None) -> None:
    if value is None:
        return
    finite = not isinstance(value, float) or math.isfinite(value)
    if finite and (low is None or value >= low) and (high is None or value <= high):
        return
    span = f"between {low} and {high}" if high is not None else f"at least {low}"
    shown = str(value)
    shown = shown if len(shown) <= _MAX_SHOWN_DIGITS else f"{shown[:_MAX_SHOWN_DIGITS]}..."
    raise InvalidRequest(f"`{name}` must be {span}, got {shown}.", param=name)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON schema (an object schema)."""

    name: str
    description: str = ""
    parameters: JSONObject = field(default_factory=dict)


class ToolChoiceMode(StrEnum):
    """Whether the model may, must not or must call a tool."""

    AUTO = "auto"
    NONE = "none"
    REQUIRED = "required"


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """What the client asked of the model about tools.

    Attributes:
        name: with `REQUIRED`, the one tool that must be called; None = any of those offered.
        is_parallel: several calls in one answer are welcome.
    """

    mode: ToolChoiceMode = ToolChoiceMode.AUTO
    name: str | None = None
    is_parallel: bool = True


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The answer must be JSON of this schema, whatever the model would rather write.

    Attributes:
        schema: a JSON schema; `{"type": "object"}` for any object.
        param: where the schema stands in the request, for errors (`response_format.json_schema.schema`).
    """

    schema: JSONObject
    param: str = "response_format"


#: (text between the markers, tools) -> call or calls, each `{"name": ..., "arguments": ...}`. Tools arrive as
#: `{"type": "function", "function": {...}}`, the shape chat templates and mlx-lm's parsers read. May raise
#: anything: the text comes from a model.
ParseToolCall: TypeAlias = Callable[[str, list[JSONObject]], JSONObject | list[JSONObject]]


class ToolCallStyle(StrEnum):
    """The family of syntaxes a model writes its tool calls in.

    Attributes:
        MARKED: between `tool_start` and `tool_end`, in a syntax that only `parse_tool_call` knows.
        HERMES: marked, and what stands between is JSON. Each call is exactly `tool_start`, a newline,
            `{"name": <name>, "arguments": <object>}`, a newline, `tool_end`; a newline between two calls.
        LLAMA: `{"name": <name>, "parameters": <object>}` as the whole answer or after `<|python_tag|>`.
        HARMONY: channels of gpt-oss; they carry the reasoning too.
    """

    MARKED = "marked"
    HERMES = "hermes"
    LLAMA = "llama"
    HARMONY = "harmony"


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How one model marks reasoning and tool calls in its output.

    Attributes:
        think_start, think_end: around reasoning. Without `think_end` the model has none. A `think_end` that
            was never opened is ordinary text.
        tool_start, tool_end: around tool calls. Without `tool_end` a call runs to the end of the completion.
        parse_tool_call: reads what stands between the tool markers; None = marked tool calls stay text.
        tool_call_style: `LLAMA` and `HARMONY` need no markers and no `parse_tool_call`.
        starts_in_reasoning: the chat template has already written `think_start`.
    """

    think_start: str | None = None
    think_end: str | None = None
    tool_start: str | None = None
    tool_end: str | None = None
    parse_tool_call: ParseToolCall | None = None
    tool_call_style: ToolCallStyle = ToolCallStyle.MARKED
    starts_in_reasoning: bool = False

    @property
    def has_tools(self) -> bool:
        """Whether the model's own tool calls can be read."""
        if self.tool_call_style in (ToolCallStyle.LLAMA, ToolCallStyle.HARMONY):
            return True
        return bool(self.tool_start) and self.parse_tool_call is not None

    @property
    def writes_json_calls(self) -> bool:
        """Whether a forced call can be enforced in the model's own syntax.

        If so its grammar is one or more calls as `ToolCallStyle.HERMES` tells, joined by newlines. Of any other
        model a forced call is a bare JSON array, `[{"name": <name>, "arguments": <object>}, ...]`, and nothing else.
        Reasoning may go before either.
        """
        return self.tool_call_style is ToolCallStyle.HERMES and self.has_tools and bool(self.tool_end)


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What one client wants, in no dialect.

    Attributes:
        id: request id, unique in the process (`new_id`); also the id the client sees.
        model: configured name or alias; "" and "default" mean the first model of models.yaml.
        tools: offered to the model; empty when the client's `tool_choice` is none.
        response_format: the answer must fit it; None = free text. Not together with a required tool call.
        num_choices: completions of the same prompt, numbered from 0.
        template_kwargs: handed to the chat template, over the model's own (`enable_thinking`, ...).
    """

    id: str
    model: str
    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    response_format: ResponseFormat | None = None
    num_choices: int = 1
    template_kwargs: JSONObject = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_bounds("n", self.num_choices, 1, MAX_CHOICES)


@dataclass(frozen=True, slots=True)
class VisionUsage:
    """What the captions of one request cost. Only captions made for this request count tokens and time.

    Attributes:
        num_images: images in the request, including those answered from the cache or by a marker.
        num_cache_hits: captions not made for this request: from the cache, from a request that had them made at the
            same time, or of the same image again.
        num_failed: images that got a marker.
        num_caption_tokens: tokens the captioner generated for this request.
        caption_ms: wall time from the first image needing a caption to the last one done; load time left out.
    """

    num_images: int = 0
    num_cache_hits: int = 0
    num_failed: int = 0
    num_caption_tokens: int = 0
    caption_ms: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """The text model's token counts."""

    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_cached_tokens: int = 0


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One picture's words on their own, or why there are none.

    Attributes:
        text: the caption; None when it failed.
        error: a short reason; None when it did not.
        width, height: of the picture that was sent, in pixels.
        captioner: who described it.
    """

    text: str | None
    error: str | None
    width: int
    height: int
    captioner: str


class WaitStatus(StrEnum):
    """What a request waits for before its first token.

    Attributes:
        QUEUED: the model is there, and all places in its batch are taken.
        WAITING_FOR_MODEL: other models have to make room for it first.
        LOADING: the model is being loaded.
        CAPTIONING: its images are being described.
    """

    QUEUED = "queued"
    WAITING_FOR_MODEL = "waiting_for_model"
    LOADING = "loading"
    CAPTIONING = "captioning"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request waits; informative only, any number of times before the first delta.

    Attributes:
        model: the one that is waited for: the request's own or its captioner.
        position: among those that wait for the same model, from 1; None while captioning.
        progress: of the load, 0 to 1.
        eta_s: about how long it will take still; None = nobody knows.
    """

    status: WaitStatus
    model: str = ""
    position: int | None = None
    progress: float | None = None
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as it is shown: its text (U+FFFD where its bytes are no whole characters) and its bytes."""

    token_id: int
    text: str
    utf8: bytes


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a completion, how likely it was, and what else was likely.

    Attributes:
        logprob: natural logarithm of its probability.
        top: the likeliest tokens and their log-probabilities, the likeliest first.
    """

    token: TokenText
    logprob: float
    top: tuple[tuple[TokenText, float], ...] = ()


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer.

    Attributes:
        logprobs: of the tokens generated since the last delta that had any, if they were asked for. They may be ahead
            of the text, and stand beside an empty one when no text follows.
        choice: which of the request's completions this belongs to, from 0.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """One whole tool call; `index` counts from 0 within the completion."""

    index: int
    call: ToolCall
    choice: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """The request's end: exactly once, last, after all choices have ended.

    Attributes:
        finish_reason: of the first choice.
        usage: of all choices together; the prompt counts once.
        vision: None when the request held no image.
        other_finish_reasons: of the choices from 1 on.
    """

    finish_reason: EndReason
    usage: Usage
    vision: VisionUsage | None = None
    other_finish_reasons: tuple[EndReason, ...] = ()

    @property
    def finish_reasons(self) -> tuple[EndReason, ...]:
        """One per choice, in order."""
        return (self.finish_reason, *self.other_finish_reasons)


OutputEvent: TypeAlias = Waiting | TextDelta | ReasoningDelta | ToolCallDelta | Finished


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `/v1/models` tells about a configured model; known before anything is loaded.

    Attributes:
        context_length: tokens, prompt and completion together; None until it is known.
        is_loaded: the model is ready now.
    """

    name: str
    aliases: tuple[str, ...]
    created: int
    context_length: int | None
    vision: VisionMode
    has_tools: bool | None
    has_reasoning: bool | None
    is_loaded: bool
    state: str


#: Which files of a hub repository make up a model, and which of those are a second copy of its weights that nobody
#: reads. `/` is matched by `*`. What was fetched and what is looked for on the disk must be the same files.
MODEL_FILES = ("*.safetensors", "*.json", "*.jsonl", "*.jinja", "*.model", "*.tiktoken", "*.txt")
NOT_MODEL_FILES = ("*consolidated*.safetensors", "original/*", "onnx/*")


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-3f9c...`; 96 random bits."""
    return f"{prefix}{secrets.token_hex(12)}"
