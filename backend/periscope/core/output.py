"""What comes back: waits, deltas, the end and what it took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Literal, TypeAlias

from periscope.core.messages import ToolCall
from periscope.core.tool_results import ListedTool, ToolResult


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
class VisionUsage:
    """What the images of one request cost. Only what was made for this request counts tokens and time.

    Attributes:
        num_images: images in the request, including those answered from the cache or by a marker.
        num_cache_hits: captions not made for this request: from the cache, from a request that had them made at the
            same time, or of the same image again.
        num_failed: images that got a marker.
        num_caption_tokens: tokens the captioner generated for this request.
        caption_ms: wall time from the first image needing a caption to the last one done; load time left out.
        reader_ms: time that reading the text in images took for this request.
        num_looks: times that the text model had an image looked at again while it answered. What those took is in the
            tokens and times.
    """

    num_images: int = 0
    num_cache_hits: int = 0
    num_failed: int = 0
    num_caption_tokens: int = 0
    caption_ms: int = 0
    reader_ms: int = 0
    num_looks: int = 0

    def with_look(self, look: VisionUsage) -> VisionUsage:
        """Pure: one look more, and the tokens and times that it took. Its image is counted already."""
        return replace(
            self,
            num_caption_tokens=self.num_caption_tokens + look.num_caption_tokens,
            caption_ms=self.caption_ms + look.caption_ms,
            reader_ms=self.reader_ms + look.reader_ms,
            num_looks=self.num_looks + 1,
        )

    def plus(self, other: VisionUsage) -> VisionUsage:
        """Pure: both together, of different images of one request."""
        return VisionUsage(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


@dataclass(frozen=True, slots=True)
class Usage:
    """The text model's token counts; of a request with several rounds, of all of them together.

    Attributes:
        num_cached_tokens: of the prompt, those whose state was kept from an earlier one.
        num_reasoning_tokens: of the completion, those of its reasoning, its end marker included.
        num_accepted_tokens: of the completion, those that were drafted from a prediction or by look-up.
        num_rejected_tokens: those that were drafted and are not in the completion.
    """

    num_prompt_tokens: int = 0
    num_completion_tokens: int = 0
    num_cached_tokens: int = 0
    num_reasoning_tokens: int = 0
    num_accepted_tokens: int = 0
    num_rejected_tokens: int = 0

    def plus(self, other: Usage) -> Usage:
        """Pure: the counts of both requests together."""
        return Usage(
            self.num_prompt_tokens + other.num_prompt_tokens,
            self.num_completion_tokens + other.num_completion_tokens,
            self.num_cached_tokens + other.num_cached_tokens,
            self.num_reasoning_tokens + other.num_reasoning_tokens,
            self.num_accepted_tokens + other.num_accepted_tokens,
            self.num_rejected_tokens + other.num_rejected_tokens,
        )


@dataclass(frozen=True, slots=True)
class CaptionedImage:
    """One picture's words on their own, or why there are none.

    Attributes:
        text: the caption; None when it failed, or was not asked for.
        error: a short reason why what was asked for failed; None when it did not.
        width, height: of the picture that was sent, in pixels.
        captioner: who described it; "" if nobody did.
        verbatim: the text that stands in it, line by line; None if there is none or it is not read.
        block: what a text model reads in its place; "" if it was not described.
    """

    text: str | None
    error: str | None
    width: int
    height: int
    captioner: str
    verbatim: str | None = None
    block: str = ""


@dataclass(frozen=True, slots=True)
class DescribedFile:
    """What a text model reads in place of an attached file.

    Attributes:
        block: its text, and its pages or frames, in order.
        num_images: pages and frames that are shown as images.
        num_failed: how many of these have no description.
    """

    block: str
    num_images: int
    num_failed: int


class WaitStatus(StrEnum):
    """What a request waits for before its first token, or between two rounds of its answer.

    Attributes:
        QUEUED: the model is there, and all places in its batch are taken.
        WAITING_FOR_MODEL: other models have to make room for it first.
        LOADING: the model is being loaded.
        CAPTIONING: its images are being described.
        CALLING: tools of MCP servers are run for it.
    """

    QUEUED = "queued"
    WAITING_FOR_MODEL = "waiting_for_model"
    LOADING = "loading"
    CAPTIONING = "captioning"
    CALLING = "calling"


@dataclass(frozen=True, slots=True)
class Waiting:
    """The request waits; informative only, any number of times before the first delta and between two rounds.

    Attributes:
        model: the one that is waited for: the request's own or its captioner; "" while tools are run.
        position: among those that wait for the same model, from 1; None while captioning, and while tools are run.
        progress: of the load, 0 to 1.
        eta_s: about how long it will take still; None = nobody knows.
        num_done, num_total: images whose captions are there, and images that are being captioned together; or calls
            that have their results, and calls that are run side by side. Else None. Images whose captions were known
            count in neither.
    """

    status: WaitStatus
    model: str = ""
    position: int | None = None
    progress: float | None = None
    eta_s: float | None = None
    num_done: int | None = None
    num_total: int | None = None


#: Hears what a request waits for, each time that changes. Called on the event loop; never waits, never raises.
Tell: TypeAlias = Callable[[Waiting], None]


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token as it is shown: its text (U+FFFD where its bytes are no whole characters) and its bytes."""

    token_id: int
    text: str
    utf8: bytes


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text or a rendered chat as the model reads it.

    Attributes:
        context_length: of the model, in tokens, prompt and completion together.
    """

    tokens: tuple[TokenText, ...]
    context_length: int


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of a completion or of an echoed prompt, how likely it was, and what else was likely.

    Attributes:
        logprob: natural logarithm of its probability; None for the first token of a prompt, before which is nothing.
        top: the likeliest tokens and their log-probabilities, the likeliest first.
    """

    token: TokenText
    logprob: float | None
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
class ToolCallStart:
    """A tool call begins; its arguments follow.

    Attributes:
        index: counts from 0 within the completion.
    """

    index: int
    id: str
    name: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """More of a call's arguments, as the model writes them.

    Joined they are the JSON text of an object, unless the model was cut off in the middle of a call or did not write
    JSON: as with OpenAI, who executes a call has to check its arguments.

    Attributes:
        index: of the call, the one that began last.
        arguments: never empty.
    """

    index: int
    arguments: str
    choice: int = 0


@dataclass(frozen=True, slots=True)
class ToolsListing:
    """The tools of an MCP server are asked for. `ToolsListed` of the same server follows."""

    server: str


@dataclass(frozen=True, slots=True)
class ToolsListed:
    """The tools of an MCP server that the model is offered.

    Attributes:
        error: why there are none; None if the server has told.
    """

    server: str
    tools: tuple[ListedTool, ...] = ()
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ServerCallStart:
    """A call begins that the server runs and whose client hears of it; its arguments follow.

    Attributes:
        name: as the model knows the tool.
        approval_id: of the `ApprovalWanted` that the client has answered; None if nobody was asked.
    """

    id: str
    name: str
    approval_id: str | None = None


@dataclass(frozen=True, slots=True)
class ServerCallDelta:
    """More of the arguments of such a call, as of `ToolCallDelta`."""

    id: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ServerCallRun:
    """All arguments of the call are there, and it is run now, beside the others of its round."""

    id: str


@dataclass(frozen=True, slots=True)
class ServerCallResult:
    """What the call gave. The results of one round come in the order in which its calls end."""

    id: str
    result: ToolResult = field(repr=False)


@dataclass(frozen=True, slots=True)
class ApprovalWanted:
    """The model has called a tool that is only run when the client agrees: the answer ends without running it.

    Attributes:
        call: as the model wrote it.
    """

    call: ToolCall


@dataclass(frozen=True, slots=True)
class Finished:
    """The request's end: exactly once, last, after all choices have ended.

    Attributes:
        finish_reason: of the first choice.
        usage: of all choices together; the prompt counts once.
        vision: None when the request held no image.
        other_finish_reasons: of the choices from 1 on.
        stop_string: the one of the request's stop strings that ended the first choice; None if none did.
    """

    finish_reason: EndReason
    usage: Usage
    vision: VisionUsage | None = None
    other_finish_reasons: tuple[EndReason, ...] = ()
    stop_string: str | None = None

    @property
    def finish_reasons(self) -> tuple[EndReason, ...]:
        """One per choice, in order."""
        return (self.finish_reason, *self.other_finish_reasons)


#: What a request's tools on MCP servers do, for clients that have asked for them (`/v1/responses`).
ServerToolEvent: TypeAlias = (
    ToolsListing | ToolsListed | ServerCallStart | ServerCallDelta | ServerCallRun | ServerCallResult | ApprovalWanted
)
OutputEvent: TypeAlias = Waiting | TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta | Finished
#: Of an answer whose request asks for tools on MCP servers.
AnswerEvent: TypeAlias = OutputEvent | ServerToolEvent
