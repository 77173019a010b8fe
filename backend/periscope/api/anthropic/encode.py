"""Messages, core to wire: a whole message, or the events of a stream. Knows no socket."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from periscope.api.answer_notes import answer_notes
from periscope.api.sse import comment_frame, data_frame
from periscope.api.status_wire import encode_wait
from periscope.api.wording import clip
from periscope.core import (
    Finished,
    FinishReason,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolCallStart,
    Waiting,
)

if TYPE_CHECKING:
    from periscope.core import JSONObject, OutputEvent, Usage

Delta: TypeAlias = TextDelta | ReasoningDelta | ToolCallStart | ToolCallDelta

#: Reasoning comes back with it. It says nothing, but clients drop thinking blocks without one.
SIGNATURE = "cGVyaXNjb3Bl"
#: Arguments of a call that are not the JSON of an object stand under this key, which no tool's schema has.
INVALID_INPUT = "_invalid_json"
_STOP_REASONS: Mapping[FinishReason, str] = {
    FinishReason.STOP: "end_turn",
    FinishReason.LENGTH: "max_tokens",
    FinishReason.TOOL_CALLS: "tool_use",
}


@dataclass(frozen=True, slots=True)
class MessageReply:
    """The fields of an answer that do not depend on the model's output, and its form.

    Attributes:
        model: the name in the request; the configured one if there is none.
        shows_thinking: reasoning becomes thinking blocks; else it is left out.
        left_out: places of tools in the request that were not offered to the model.
    """

    id: str
    model: str
    shows_thinking: bool = False
    left_out: tuple[str, ...] = ()
    is_single_tool_call: bool = False
    status_as_comments: bool = False

    def takes(self, delta: Delta) -> bool:
        """Whether the client wants this: reasoning if it asked for it, and all calls or only the first."""
        match delta:
            case ReasoningDelta(text):
                return self.shows_thinking and bool(text)
            case TextDelta(text):
                return bool(text)
            case _:
                return delta.index == 0 or not self.is_single_tool_call


def encode_message(events: Sequence[OutputEvent], reply: MessageReply) -> JSONObject:
    """Pure: all events of a request, `Finished` last, as one message."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    deltas = [event for event in events if not isinstance(event, (Waiting, Finished)) and reply.takes(event)]
    blocks = [_block(list(group)) for _, group in itertools.groupby(deltas, key=_block_key)]
    return _message(reply, blocks) | _ending(finished) | {"usage": _usage(finished.usage)} | _extension(finished, reply)


def encode_count(events: Sequence[OutputEvent]) -> JSONObject:
    """Pure: the prompt's tokens, which the last event of a request that only counts has."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    return {"input_tokens": finished.usage.num_prompt_tokens}


class EventEncoder:
    """Owns the state of a stream between events: the open content block, and what the request waits for."""

    def __init__(self, reply: MessageReply) -> None:
        self._reply = reply
        self._waits_for: JSONObject | None = None
        self._num_blocks = 0
        self._open: str | int | None = None  # `_block_key` of the block whose end was not sent yet

    def opening(self) -> bytes:
        """`message_start`. Its usage is zero: the prompt is not tokenised yet, and `message_delta` has the counts."""
        return _frame({"type": "message_start", "message": _message(self._reply, []) | {"usage": _NO_USAGE}})

    def event(self, event: OutputEvent) -> bytes:
        """The events of a delta, or a ping for a wait state unless it says what the last one said.

        Of `Finished`: the end of the open block, `message_delta` and `message_stop`.
        """
        if isinstance(event, Waiting):
            told = encode_wait(event)
            is_news, self._waits_for = told != self._waits_for, told
            return self.heartbeat() if is_news else b""
        self._waits_for = None
        if isinstance(event, Finished):
            return b"".join(map(_frame, (*self._closed(), *_last_events(event, self._reply))))
        return b"".join(map(_frame, self._delta(event))) if self._reply.takes(event) else b""

    def heartbeat(self) -> bytes:
        """A ping with what the request waits for, if anything; or a comment, by setting."""
        if self._reply.status_as_comments:
            told = [f"{key} {clip(str(value))}" for key, value in (self._waits_for or {}).items()]
            return comment_frame(", ".join(told) or "keep-alive")
        return _frame({"type": "ping"} | ({"periscope": self._waits_for} if self._waits_for else {}))

    def failure(self, error: JSONObject) -> bytes:
        """The error as an `error` event, which SDKs raise. Nothing follows it."""
        return _frame(error)

    def _delta(self, delta: Delta) -> Iterator[JSONObject]:
        if self._open != _block_key(delta):
            yield from self._closed()
            self._open, self._num_blocks = _block_key(delta), self._num_blocks + 1
            yield self._of_block("content_block_start", content_block=_empty_block(delta))
        match delta:
            case TextDelta(text):
                yield self._of_block("content_block_delta", delta={"type": "text_delta", "text": text})
            case ReasoningDelta(text):
                yield self._of_block("content_block_delta", delta={"type": "thinking_delta", "thinking": text})
            case ToolCallDelta(_, arguments):
                piece = {"type": "input_json_delta", "partial_json": arguments}
                yield self._of_block("content_block_delta", delta=piece)
            case ToolCallStart():
                pass

    def _closed(self) -> Iterator[JSONObject]:
        if self._open is None:
            return
        if self._open == _THINKING:
            yield self._of_block("content_block_delta", delta={"type": "signature_delta", "signature": SIGNATURE})
        yield self._of_block("content_block_stop")
        self._open = None

    def _of_block(self, kind: str, **fields: JSONObject) -> JSONObject:
        return {"type": kind, "index": self._num_blocks - 1, **fields}


_TEXT, _THINKING = "text", "thinking"


def _block_key(delta: Delta) -> str | int:
    """What the content block of a delta is known by: consecutive deltas with the same key are one block."""
    match delta:
        case TextDelta():
            return _TEXT
        case ReasoningDelta():
            return _THINKING
        case ToolCallStart(index) | ToolCallDelta(index):
            return index


def _block(deltas: Sequence[Delta]) -> JSONObject:
    """One content block with all of its deltas."""
    empty = _empty_block(deltas[0])
    match empty["type"]:
        case "text":
            return empty | {"text": "".join(delta.text for delta in deltas if isinstance(delta, TextDelta))}
        case "thinking":
            told = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
            return empty | {"thinking": told, "signature": SIGNATURE}
        case _:
            return empty | {"input": _input("".join(d.arguments for d in deltas if isinstance(d, ToolCallDelta)))}


def _empty_block(first: Delta) -> JSONObject:
    """A content block as its start event has it."""
    match first:
        case TextDelta():
            return {"type": "text", "text": ""}  # no `citations`: the AI SDK takes a list or none, and no null
        case ReasoningDelta():
            return {"type": "thinking", "thinking": "", "signature": ""}
        case ToolCallStart(_, call_id, name):
            return {"type": "tool_use", "id": call_id, "name": name, "input": {}}
        case ToolCallDelta():
            raise AssertionError("a call's arguments follow its start")


def _input(arguments: str) -> JSONObject:
    """The arguments of a call as an object; text that is none as the model wrote it, for the client to refuse."""
    try:
        value: Any = json.loads(arguments or "{}")
    except ValueError:
        value = None
    return value if isinstance(value, dict) else {INVALID_INPUT: arguments}


def _message(reply: MessageReply, blocks: list[JSONObject]) -> JSONObject:
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": blocks,
        "stop_reason": None,
        "stop_sequence": None,
    }


def _ending(finished: Finished) -> JSONObject:
    is_stopped = finished.finish_reason is FinishReason.STOP and finished.stop_string is not None
    reason = "stop_sequence" if is_stopped else _STOP_REASONS[finished.finish_reason]
    return {"stop_reason": reason, "stop_sequence": finished.stop_string if is_stopped else None}


def _last_events(finished: Finished, reply: MessageReply) -> Iterator[JSONObject]:
    usage = _usage(finished.usage)
    yield {"type": "message_delta", "delta": _ending(finished), "usage": usage} | _extension(finished, reply)
    yield {"type": "message_stop"}


_NO_USAGE: JSONObject = {
    "input_tokens": 0,
    "cache_creation_input_tokens": 0,
    "cache_read_input_tokens": 0,
    "output_tokens": 0,
}


def _usage(usage: Usage) -> JSONObject:
    """Anthropic's counts: `input_tokens` are those that no cache had."""
    return _NO_USAGE | {
        "input_tokens": usage.num_prompt_tokens - usage.num_cached_tokens,
        "cache_read_input_tokens": usage.num_cached_tokens,
        "output_tokens": usage.num_completion_tokens,
    }


def _extension(finished: Finished, reply: MessageReply) -> JSONObject:
    """The one field that is not Anthropic's; absent if there is nothing to tell."""
    notes = answer_notes(finished.vision, reply.left_out)
    return {} if notes is None else {"periscope": notes}


def _frame(event: JSONObject) -> bytes:
    """One event under the name of its type."""
    return b"event: %s\n" % str(event["type"]).encode() + data_frame(event)
