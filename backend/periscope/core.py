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
}
MAX_STOP_STRINGS = 16
MAX_STOP_LENGTH = 1024


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
        logprobs: report the log-probability of each token of the completion.

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
    logprobs: bool = False

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            _check_bounds(name, getattr(self, name), low, high)
        if len(self.stop) > MAX_STOP_STRINGS:
            raise InvalidRequest(
                f"`stop` takes at most {MAX_STOP_STRINGS} strings, got {len(self.stop)}.", param="stop"
            )
        if any(not 0 < len(text) <= MAX_STOP_LENGTH for text in self.stop):
            raise InvalidRequest(f"Each `stop` string needs 1 to {MAX_STOP_LENGTH} characters.", param="stop")

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
    raise InvalidRequest(f"`{name}` must be {span}, got {value}.", param=name)


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call. `parameters` is a JSON schema (an object schema)."""

    name: str
    description: str = ""
    parameters: JSONObject = field(default_factory=dict)


#: (text between the markers, tools) -> call or calls, each `{"name": ..., "arguments": ...}`. Tools arrive as
#: `{"type": "function", "function": {...}}`, the shape chat templates and mlx-lm's parsers read. May raise
#: anything: the text comes from a model.
ParseToolCall: TypeAlias = Callable[[str, list[JSONObject]], JSONObject | list[JSONObject]]


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """How one model marks reasoning and tool calls in its output.

    Attributes:
        think_start, think_end: around reasoning. Without `think_end` the model has none. A `think_end` that
            was never opened is ordinary text.
        tool_start, tool_end: around tool calls. Without `tool_end` a call runs to the end of the completion.
        parse_tool_call: reads what stands between the tool markers; None = tool calls stay text.
        starts_in_reasoning: the chat template has already written `think_start`.
    """

    think_start: str | None = None
    think_end: str | None = None
    tool_start: str | None = None
    tool_end: str | None = None
    parse_tool_call: ParseToolCall | None = None
    starts_in_reasoning: bool = False


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What one client wants, in no dialect.

    Attributes:
        id: request id, unique in the process (`new_id`); also the id the client sees.
        model: configured name or alias; "" and "default" mean the first model of models.yaml.
        tools: offered to the model; empty when the client's `tool_choice` is none.
    """

    id: str
    model: str
    messages: tuple[Message, ...]
    params: GenerationParams = GenerationParams()
    tools: tuple[Tool, ...] = ()


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
    """What a request waits for before its first token."""

    LOADING = "loading"
    CAPTIONING = "captioning"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request waits; informative only, any number of times before the first delta."""

    status: WaitStatus


@dataclass(frozen=True, slots=True)
class TextDelta:
    """More of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class ReasoningDelta:
    """More of the model's reasoning."""

    text: str


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """One whole tool call; `index` counts from 0 within the completion."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class Finished:
    """The completion's end: exactly once, last. `vision` is None when the request held no image."""

    finish_reason: Literal[FinishReason.STOP, FinishReason.LENGTH, FinishReason.TOOL_CALLS]
    usage: Usage
    vision: VisionUsage | None = None


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


def new_id(prefix: str) -> str:
    """A fresh id such as `chatcmpl-3f9c...`; 96 random bits."""
    return f"{prefix}{secrets.token_hex(12)}"
