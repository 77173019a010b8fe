"""The events of one answer become a message. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from periscope.core import (
    Finished,
    FinishReason,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
)


@dataclass(slots=True)
class Answer:
    """One answer of the model, as far as it has come.

    Attributes:
        finished: its end; None before it.
    """

    finished: Finished | None = None
    _text: list[str] = field(default_factory=list)
    _reasoning: list[str] = field(default_factory=list)
    _calls: list[tuple[str, str, list[str]]] = field(default_factory=list)

    def take(self, event: OutputEvent) -> None:
        """Add an event of the first choice."""
        match event:
            case TextDelta():
                self._text.append(event.text)
            case ReasoningDelta():
                self._reasoning.append(event.text)
            case ToolCallStart():
                self._calls.append((event.id, event.name, []))
            case ToolCallDelta():
                self._calls[event.index][2].append(event.arguments)
            case Finished():
                self.finished = event
            case _:
                pass

    @property
    def usage(self) -> Usage:
        """The usage of an answer that has ended; zeros before."""
        return Usage() if self.finished is None else self.finished.usage

    @property
    def has_calls(self) -> bool:
        """The answer has ended with whole calls."""
        return (
            bool(self._calls) and self.finished is not None and self.finished.finish_reason is FinishReason.TOOL_CALLS
        )

    @property
    def is_cut_off(self) -> bool:
        """Whether the answer ended at `max_tokens` or at the end of the context."""
        return self.finished is not None and self.finished.finish_reason is FinishReason.LENGTH

    @property
    def message(self) -> Message:
        """The answer as a message of the assistant. A call that was cut off is left out."""
        text = "".join(self._text)
        calls = tuple(ToolCall(id_, name, "".join(pieces) or "{}") for id_, name, pieces in self._calls)
        return Message(
            Role.ASSISTANT,
            (TextPart(text),) if text else (),
            calls if self.has_calls else (),
            reasoning="".join(self._reasoning) or None,
        )
