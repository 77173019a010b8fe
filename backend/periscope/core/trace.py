"""What is known of a request when it has ended: its phases, what it cost, and the trace that it belongs to.

Never a prompt, a caption or an answer: this is what metrics and traces are made of.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum

from periscope.core.output import FinishReason, Usage, VisionUsage


class RequestPhase(StrEnum):
    """What a request does at one time. The first six happen before the first token, or between two rounds.

    Attributes:
        STARTING: nothing of the others: images are read and decoded, captions come from the cache.
        CAPTIONING, CALLING, QUEUED, WAITING_FOR_MODEL, LOADING: as the `WaitStatus` of the same name.
        PREFILL: it has its lease, and the model has written nothing yet.
        DECODE: the model writes.
    """

    STARTING = "starting"
    CAPTIONING = "captioning"
    CALLING = "calling"
    QUEUED = "queued"
    WAITING_FOR_MODEL = "waiting_for_model"
    LOADING = "loading"
    PREFILL = "prefill"
    DECODE = "decode"

    @property
    def is_queue(self) -> bool:
        """The request waits for its text model."""
        return self in {RequestPhase.QUEUED, RequestPhase.WAITING_FOR_MODEL, RequestPhase.LOADING}


class Operation(StrEnum):
    """What a request asks of the model, by the names of OpenTelemetry's GenAI conventions; the last is our own."""

    CHAT = "chat"
    TEXT_COMPLETION = "text_completion"
    EMBEDDINGS = "embeddings"
    COUNT_TOKENS = "count_tokens"

    @property
    def generates(self) -> bool:
        """Whether the model writes a completion for it."""
        return self in {Operation.CHAT, Operation.TEXT_COMPLETION}


@dataclass(frozen=True, slots=True)
class PhaseSpan:
    """One phase of a request, in seconds on the event loop's clock. Each begins where the last one ended."""

    phase: RequestPhase
    began_at: float
    ended_at: float

    @property
    def duration_s(self) -> float:
        """How long it took."""
        return self.ended_at - self.began_at


@dataclass(frozen=True, slots=True)
class TraceParent:
    """The W3C headers `traceparent` and `tracestate` of a request, as they came."""

    traceparent: str
    tracestate: str = ""


#: The headers of the request that this task works for. Tasks inherit it from the one that starts them.
TRACE_PARENT: ContextVar[TraceParent | None] = ContextVar("trace_parent", default=None)


@dataclass(frozen=True, slots=True)
class RequestTrace:
    """One request from its arrival to its end.

    Attributes:
        model: its configured name.
        phases: without gaps, in order; never empty for a request that was served.
        error: the class of the error that ended it, `RequestCancelled` if its client or a command did; None if none.
        usage, finish_reasons, vision: of its `Finished`; None and () if it did not get there.
    """

    model: str = ""
    operation: Operation = Operation.CHAT
    num_images: int = 0
    num_choices: int = 1
    phases: tuple[PhaseSpan, ...] = ()
    error: str | None = None
    usage: Usage | None = None
    finish_reasons: tuple[FinishReason, ...] = ()
    vision: VisionUsage | None = None
    parent: TraceParent | None = None

    @property
    def duration_s(self) -> float:
        """From its arrival to its end."""
        return self.phases[-1].ended_at - self.phases[0].began_at if self.phases else 0.0

    @property
    def time_to_first_token_s(self) -> float | None:
        """From its arrival; None if the model wrote nothing."""
        first = next((span for span in self.phases if span.phase is RequestPhase.DECODE), None)
        return None if first is None else first.began_at - self.phases[0].began_at

    @property
    def queue_s(self) -> float:
        """Time that it waited for its text model, loads included."""
        return sum(span.duration_s for span in self.phases if span.phase.is_queue)

    @property
    def time_per_output_token_s(self) -> float | None:
        """Mean time between two tokens of one choice; None if no choice has two."""
        if self.usage is None:
            return None
        decoding = [span.duration_s for span in self.phases if span.phase is RequestPhase.DECODE]
        num_gaps = self.usage.num_completion_tokens - self.num_choices * len(decoding)
        return self.num_choices * sum(decoding) / num_gaps if num_gaps > 0 else None
