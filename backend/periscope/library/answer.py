"""ChatAnswer: all events of one request, put together. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from periscope.core import (
    EndReason,
    Finished,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    VisionUsage,
)


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """A model's whole answer.

    Attributes:
        text: "" if there are calls alone.
        reasoning: what the model thought before it, where the model marks that; "" if there is none.
        tool_calls: in the order in which the model wrote them. Check their arguments before you run them.
        finish_reason: `stop`, `length` or `tool_calls`.
        usage: in tokens.
        vision: what the images took; None without images.
        logprobs: of each token of the answer, if they were asked for.
    """

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: EndReason
    usage: Usage
    vision: VisionUsage | None = None
    logprobs: tuple[TokenLogprob, ...] = ()

    @property
    def message(self) -> Message:
        """The answer as the next message of its conversation."""
        parts = (TextPart(self.text),) if self.text else ()
        return Message(Role.ASSISTANT, parts, self.tool_calls, reasoning=self.reasoning or None)


def answer_of(events: Sequence[OutputEvent]) -> ChatAnswer:
    """The answer that the events of a request with one choice make, `Finished` last."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # a feed hands out nothing else
    texts = [event for event in events if isinstance(event, TextDelta)]
    return ChatAnswer(
        text="".join(event.text for event in texts),
        reasoning="".join(event.text for event in events if isinstance(event, ReasoningDelta)),
        tool_calls=tuple(_calls(events)),
        finish_reason=finished.finish_reason,
        usage=finished.usage,
        vision=finished.vision,
        logprobs=tuple(entry for event in texts for entry in event.logprobs),
    )


def _calls(events: Sequence[OutputEvent]) -> Iterator[ToolCall]:
    pieces = [event for event in events if isinstance(event, ToolCallDelta)]
    for start in events:
        if isinstance(start, ToolCallStart):
            arguments = "".join(piece.arguments for piece in pieces if piece.index == start.index)
            yield ToolCall(start.id, start.name, arguments)
