"""Chat completions, core to wire: a whole completion, or the chunks of a stream. Knows no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from periscope.api.sse import comment_frame, data_frame
from periscope.core import Finished, ReasoningDelta, TextDelta, ToolCallDelta, Waiting, WaitStatus

if TYPE_CHECKING:
    from periscope.core import JSONObject, OutputEvent, ToolCall, Usage, VisionUsage

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What stands in every chunk of an answer, and how it is wanted.

    Attributes:
        model: the name the client asked with; the configured one if it asked with none.
        created: seconds since 1970.
    """

    id: str
    model: str
    created: int
    has_usage: bool = False
    is_single_tool_call: bool = False
    status_as_comments: bool = False

    def takes(self, event: ToolCallDelta) -> bool:
        """Whether the client wants this call: all, or the first alone."""
        return event.index == 0 or not self.is_single_tool_call


def encode_completion(events: Sequence[OutputEvent], reply: ChatReply) -> JSONObject:
    """Pure: all events of a request, `Finished` last, as one `chat.completion`."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    reasoning = "".join(event.text for event in events if isinstance(event, ReasoningDelta))
    calls = [_call(e.call) for e in events if isinstance(e, ToolCallDelta) and reply.takes(e)]
    message: JSONObject = {"role": "assistant", "content": text or (None if calls else "")}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finished.finish_reason}
    return {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [choice],
        "usage": _usage(finished.usage),
        **_extension(_vision(finished.vision)),
    }


class ChunkEncoder:
    """Owns what a stream must remember between chunks: what the request waits for, which heartbeats repeat."""

    def __init__(self, reply: ChatReply) -> None:
        self._reply = reply
        self._waits_for: WaitStatus | None = None

    def opening(self) -> bytes:
        """The role, once."""
        return self._chunk({"role": "assistant", "content": ""})

    def event(self, event: OutputEvent) -> bytes:
        """The chunk of a delta; of `Finished`: the finish chunk, the usage chunk if wanted, and `[DONE]`."""
        if isinstance(event, Waiting):
            self._waits_for = event.status
            return self.heartbeat()
        self._waits_for = None
        match event:
            case TextDelta(text):
                return self._chunk({"content": text}) if text else b""
            case ReasoningDelta(text):
                return self._chunk({"reasoning_content": text}) if text else b""
            case ToolCallDelta():
                call = {"index": event.index, **_call(event.call)}
                return self._chunk({"tool_calls": [call]}) if self._reply.takes(event) else b""
            case Finished():
                return self._ending(event)

    def heartbeat(self) -> bytes:
        """A chunk with an empty delta, which says what the request waits for if it does; or a comment, if set so."""
        if self._reply.status_as_comments:
            return comment_frame(f"status {self._waits_for}" if self._waits_for else "keep-alive")
        return self._chunk({}, periscope={"status": self._waits_for} if self._waits_for else None)

    def failure(self, error: JSONObject) -> bytes:
        """The error as OpenAI streams it, which SDKs raise, then `[DONE]`. No finish reason: nothing succeeded."""
        return data_frame(error) + DONE

    def _ending(self, finished: Finished) -> bytes:
        frames = self._chunk({}, finished.finish_reason, _vision(finished.vision))
        if self._reply.has_usage:
            frames += data_frame(self._head() | {"choices": [], "usage": _usage(finished.usage)})
        return frames + DONE

    def _chunk(self, delta: JSONObject, finish_reason: str | None = None, periscope: JSONObject | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        usage: JSONObject = {"usage": None} if self._reply.has_usage else {}
        return data_frame(self._head() | {"choices": [choice]} | usage | _extension(periscope))

    def _head(self) -> JSONObject:
        reply = self._reply
        return {
            "id": reply.id,
            "object": "chat.completion.chunk",
            "created": reply.created,
            "model": reply.model,
        }


def _call(call: ToolCall) -> JSONObject:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _usage(usage: Usage) -> JSONObject:
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_completion_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens},
    }


def _vision(vision: VisionUsage | None) -> JSONObject | None:
    return None if vision is None else {"vision": asdict(vision)}


def _extension(periscope: JSONObject | None) -> JSONObject:
    """The one field that is not OpenAI's; absent when there is nothing to say."""
    return {} if periscope is None else {"periscope": periscope}
