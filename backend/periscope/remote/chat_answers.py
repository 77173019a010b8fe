"""Chat completions, wire to core: a stream's chunks as output events, a whole answer as one value. No sockets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    Waiting,
    WaitStatus,
    new_id,
)
from periscope.errors import RemoteAnswerBroken
from periscope.remote.wire import CompletionDetailsWire, CompletionWire, read_wire

if TYPE_CHECKING:
    from periscope.core import EndReason, OutputEvent, VisionUsage
    from periscope.remote.wire import CallWire, ChoiceWire, PeriscopeWire, UsageWire

#: Why a completion may end. Any other reason means that it was cut off, as vLLM's `abort` does.
_END_REASONS: Mapping[str, EndReason] = {
    "stop": FinishReason.STOP,
    "length": FinishReason.LENGTH,
    "tool_calls": FinishReason.TOOL_CALLS,
    "function_call": FinishReason.TOOL_CALLS,
}


@dataclass(frozen=True, slots=True)
class ChatChoice:
    """One completion of an answer."""

    text: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: EndReason


@dataclass(frozen=True, slots=True)
class ChatAnswer:
    """The whole answer to one request.

    Attributes:
        choices: at least one, in order.
        usage: zeros where the server does not count.
        vision: None unless the server is a Periscope and the request held an image.
    """

    choices: tuple[ChatChoice, ...]
    usage: Usage
    vision: VisionUsage | None


class ChatStreamDecoder:
    """Owns what one stream has said so far of its calls and its end. `server`: how messages name it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._calls: dict[int, _OpenCalls] = {}
        self._choices: set[int] = set()
        self._reasons: dict[int, EndReason] = {}
        self._usage = Usage()
        self._vision: VisionUsage | None = None

    def feed(self, data: str) -> list[OutputEvent]:
        """The events of one chunk.

        Raises:
            RemoteRefused: the server ended the stream with an error.
            RemoteAnswerBroken: this is no chunk of a chat completion.
        """
        chunk = read_wire(CompletionWire, data, self._server)
        events: list[OutputEvent] = []
        if chunk.periscope is not None:
            self._vision = chunk.periscope.vision or self._vision
            events += _waiting(chunk.periscope)
        for choice in chunk.choices or ():
            events += self._deltas(choice)
        if chunk.usage is not None:
            self._usage = _usage(chunk.usage)
        return events

    def finish(self) -> Finished:
        """The end, once the stream has ended; its usage is zeros where the server does not count.

        Raises:
            RemoteAnswerBroken: a choice has not ended.
        """
        indices = sorted(self._choices)
        if not indices or self._reasons.keys() != self._choices or indices[-1] != len(indices) - 1:
            raise RemoteAnswerBroken(f"The server at {self._server} ended the answer before it was complete.")
        first, *others = (self._reasons[index] for index in indices)
        return Finished(first, self._usage, self._vision, tuple(others))

    def _deltas(self, wire: ChoiceWire) -> list[OutputEvent]:
        self._choices.add(wire.index)
        events: list[OutputEvent] = []
        if (delta := wire.delta) is not None:
            if reasoning := delta.reasoning_content or delta.reasoning:
                events.append(ReasoningDelta(reasoning, wire.index))
            if delta.content:
                events.append(TextDelta(delta.content, choice=wire.index))
            for piece in delta.tool_calls or ():
                events += self._calls.setdefault(wire.index, _OpenCalls(wire.index, self._server)).feed(piece)
        if wire.finish_reason:
            self._reasons[wire.index] = _end_reason(wire.finish_reason, self._server)
        return events


class _OpenCalls:
    """Owns which tool calls of one choice have begun. Servers may count them as they like; here they count from 0."""

    def __init__(self, choice: int, server: str) -> None:
        self._choice = choice
        self._server = server
        self._ids: list[str] = []
        self._numbers: dict[int, int] = {}  # of the call that the server's own index stands for

    def feed(self, piece: CallWire) -> list[OutputEvent]:
        """The events of one piece.

        Raises:
            RemoteAnswerBroken: it begins a call and does not name it.
        """
        events: list[OutputEvent] = []
        name, arguments = (piece.function.name, piece.function.arguments) if piece.function else (None, None)
        number = self._number_of(piece, name)
        if number is None:
            if not name:
                raise RemoteAnswerBroken(f"The server at {self._server} began a tool call without a name.")
            number = len(self._ids)
            self._ids.append(piece.id or new_id("call_"))
            events.append(ToolCallStart(number, self._ids[number], name, self._choice))
        if piece.index is not None:
            self._numbers[piece.index] = number
        if arguments:
            events.append(ToolCallDelta(number, arguments, self._choice))
        return events

    def _number_of(self, piece: CallWire, name: str | None) -> int | None:
        """Which call this continues; None = it begins one.

        A name under a new id begins a call even if its index is taken: some servers give every call the index 0. An id
        alone does not: others send a new one with every piece.
        """
        newest = len(self._ids) - 1 if self._ids else None
        known = newest if piece.index is None else self._numbers.get(piece.index)
        if known is None or not name:
            return known
        is_same = piece.index is not None if not piece.id else piece.id == self._ids[known]
        return known if is_same else None


def read_answer(told: bytes, server: str) -> ChatAnswer:
    """Pure: a whole `chat.completion`.

    Raises:
        RemoteRefused, RemoteAnswerBroken: as for a stream.
    """
    wire = read_wire(CompletionWire, told, server)
    choices = sorted(wire.choices or (), key=lambda choice: choice.index)
    if not choices:
        raise RemoteAnswerBroken(f"The server at {server} sent an answer without a choice.")
    return ChatAnswer(
        choices=tuple(_choice(choice, server) for choice in choices),
        usage=Usage() if wire.usage is None else _usage(wire.usage),
        vision=None if wire.periscope is None else wire.periscope.vision,
    )


def _choice(wire: ChoiceWire, server: str) -> ChatChoice:
    if (message := wire.message) is None:
        raise RemoteAnswerBroken(f"The server at {server} sent a choice without a message.")
    return ChatChoice(
        text=message.content or "",
        reasoning=message.reasoning_content or message.reasoning or "",
        tool_calls=tuple(_call(call, server) for call in message.tool_calls or ()),
        finish_reason=_end_reason(wire.finish_reason, server),
    )


def _call(wire: CallWire, server: str) -> ToolCall:
    if wire.function is None or not wire.function.name:
        raise RemoteAnswerBroken(f"The server at {server} sent a tool call without a name.")
    return ToolCall(wire.id or new_id("call_"), wire.function.name, wire.function.arguments or "")


def _end_reason(told: str | None, server: str) -> EndReason:
    if (reason := _END_REASONS.get(told or "")) is None:
        shown = (told or "none")[:40]
        raise RemoteAnswerBroken(
            f"The server at {server} ended the answer before it was complete (finish_reason {shown!r})."
        )
    return reason


def _waiting(told: PeriscopeWire) -> list[OutputEvent]:
    """A wait state that this version does not know is passed over."""
    if told.status not in set(WaitStatus):
        return []
    waiting = Waiting(
        WaitStatus(told.status),
        told.model or "",
        told.position,
        told.progress,
        told.eta_s,
        num_done=told.done,
        num_total=told.total,
    )
    return [waiting]


def _usage(wire: UsageWire) -> Usage:
    cached = None if wire.prompt_tokens_details is None else wire.prompt_tokens_details.cached_tokens
    told = wire.completion_tokens_details or CompletionDetailsWire()
    return Usage(
        wire.prompt_tokens or 0,
        wire.completion_tokens or 0,
        cached or 0,
        told.reasoning_tokens or 0,
        told.accepted_prediction_tokens or 0,
        told.rejected_prediction_tokens or 0,
    )
