"""Chat completions, core to wire: a whole completion, or the chunks of a stream. Knows no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from periscope.api.answer_notes import answer_notes
from periscope.api.openai.call_encode import CallDelta, CallEncoder, encode_calls
from periscope.api.replies import dump_json, json_logprob
from periscope.api.sse import comment_frame, data_frame, framed
from periscope.api.status_wire import encode_wait
from periscope.api.wording import clip
from periscope.core import Finished, FinishReason, ReasoningDelta, TextDelta, ToolCallDelta, ToolCallStart, Waiting

if TYPE_CHECKING:
    from periscope.core import (
        JSONObject,
        OutputEvent,
        TokenLogprob,
        TokenText,
        Usage,
    )

DONE = b"data: [DONE]\n\n"

Delta: TypeAlias = TextDelta | ReasoningDelta | CallDelta


@dataclass(frozen=True, slots=True)
class ChatReply:
    """The fields of every chunk of an answer, and its form.

    Attributes:
        model: the name in the request; the configured one if there is none.
        created: seconds since 1970.
        custom_tools: names of tools whose calls hold a text.
        left_out: places of tools in the request that were not offered to the model.
        has_functions: the client sent `functions`: its one call is told as `function_call`.
    """

    id: str
    model: str
    created: int
    num_choices: int = 1
    has_usage: bool = False
    is_single_tool_call: bool = False
    custom_tools: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()
    has_functions: bool = False
    status_as_comments: bool = False

    def takes(self, event: CallDelta) -> bool:
        """Whether the client wants this call: all of them, or only the first."""
        return event.index == 0 or not self.is_single_tool_call

    def called(self, calls: Sequence[JSONObject]) -> JSONObject:
        """The calls, or pieces of calls, as the field of a message that has them."""
        return {"function_call": calls[0]["function"]} if self.has_functions else {"tool_calls": calls}

    def reason(self, reason: FinishReason) -> str:
        """The finish reason by the name that the client reads."""
        return "function_call" if self.has_functions and reason is FinishReason.TOOL_CALLS else reason


def encode_completion(events: Sequence[OutputEvent], reply: ChatReply) -> JSONObject:
    """Pure: all events of a request, `Finished` last, as one `chat.completion`."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    deltas = [event for event in events if not isinstance(event, (Waiting, Finished))]
    return {
        "id": reply.id,
        "object": "chat.completion",
        "created": reply.created,
        "model": reply.model,
        "choices": [
            _choice(index, [delta for delta in deltas if delta.choice == index], reason, reply)
            for index, reason in enumerate(finished.finish_reasons)
        ],
        "usage": encode_usage(finished.usage),
        **extension(answer_notes(finished.vision, reply.left_out)),
    }


def _choice(index: int, deltas: Sequence[Delta], reason: FinishReason, reply: ChatReply) -> JSONObject:
    texts = [delta for delta in deltas if isinstance(delta, TextDelta)]
    text = "".join(delta.text for delta in texts)
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, ReasoningDelta))
    called = [delta for delta in deltas if isinstance(delta, CallDelta) and reply.takes(delta)]
    calls = encode_calls(called, reply.custom_tools)
    message: JSONObject = {"role": "assistant", "content": text or (None if calls else ""), "refusal": None}
    if reasoning:
        message["reasoning_content"] = reasoning
    if calls:
        message |= reply.called(calls)
    logprobs = _logprobs([entry for delta in texts for entry in delta.logprobs])
    return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": reply.reason(reason)}


class WaitNotes:
    """Owns what a stream has last told of what its request waits for, which heartbeats repeat.

    Attributes:
        told: the wire form; None while it waits for nothing.
    """

    def __init__(self) -> None:
        self.told: JSONObject | None = None

    def take(self, event: Waiting) -> bool:
        """Note a wait state; whether it says anything new."""
        told = encode_wait(event)
        is_news, self.told = told != self.told, told
        return is_news

    def end(self) -> None:
        """Note that the request waits for nothing any more."""
        self.told = None

    @property
    def comment(self) -> str:
        """The text of a comment that tells it."""
        told = [f"{key} {clip(str(value))}" for key, value in (self.told or {}).items()]
        return ", ".join(told) or "keep-alive"


class ChunkEncoder:
    """Owns the state of a stream between chunks."""

    def __init__(self, reply: ChatReply) -> None:
        self._reply = reply
        self._waits = WaitNotes()
        self._calls = [CallEncoder(reply.custom_tools) for _ in range(reply.num_choices)]
        self._text_frames: dict[tuple[str, int], tuple[bytes, bytes]] = {}
        head = {"id": reply.id, "object": "chat.completion.chunk", "created": reply.created, "model": reply.model}
        self._head = dump_json(head).removesuffix(b"}")

    def opening(self) -> bytes:
        """The chunks with the role, one for each choice."""
        role = {"role": "assistant", "content": ""}
        return b"".join(self._chunk(role, choice) for choice in range(self._reply.num_choices))

    def event(self, event: OutputEvent) -> bytes:
        """The chunk of a delta, or of a wait state unless it says what the last one said.

        Of `Finished`: the finish chunks, the usage chunk if wanted, and `[DONE]`.
        """
        if isinstance(event, TextDelta):  # first, as nearly all are
            self._waits.end()
            if event.logprobs:
                return self._chunk({"content": event.text}, event.choice, logprobs=_logprobs(event.logprobs))
            return self._text("content", event.text, event.choice) if event.text else b""
        if isinstance(event, Waiting):
            return self.heartbeat() if self._waits.take(event) else b""
        self._waits.end()
        match event:
            case ReasoningDelta(text, choice):
                return self._text("reasoning_content", text, choice) if text else b""
            case ToolCallStart() | ToolCallDelta():
                told = self._calls[event.choice].delta(event) if self._reply.takes(event) else None
                return b"" if told is None else self._chunk(self._reply.called([told]), event.choice)
            case Finished():
                return self._ending(event)

    def _text(self, field: str, text: str, choice: int) -> bytes:
        """The frame of a delta that is text alone: `_chunk`, but only the text is encoded each time."""
        frame = self._text_frames.get((field, choice))
        if frame is None:
            before, named, after = self._chunk({field: ""}, choice).partition(dump_json(field) + b":")
            frame = self._text_frames[field, choice] = (before + named, after.removeprefix(dump_json("")))
        return frame[0] + dump_json(text) + frame[1]

    def heartbeat(self) -> bytes:
        """A chunk with an empty delta and what the request waits for, if anything; or a comment, by setting."""
        if self._reply.status_as_comments:
            return comment_frame(self._waits.comment)
        return self._chunk({}, periscope=self._waits.told)

    def failure(self, error: JSONObject) -> bytes:
        """The error as OpenAI streams it, which SDKs raise, then `[DONE]`. There is no finish reason."""
        return data_frame(error) + DONE

    def _ending(self, finished: Finished) -> bytes:
        *others, last = enumerate(map(self._reply.reason, finished.finish_reasons))
        frames = b"".join(self._chunk({}, choice, finish_reason=reason) for choice, reason in others)
        frames += self._chunk(
            {}, last[0], finish_reason=last[1], periscope=answer_notes(finished.vision, self._reply.left_out)
        )
        if self._reply.has_usage:
            frames += self._frame({"choices": [], "usage": encode_usage(finished.usage)})
        return frames + DONE

    def _chunk(
        self,
        delta: JSONObject,
        index: int = 0,
        *,
        logprobs: JSONObject | None = None,
        finish_reason: str | None = None,
        periscope: JSONObject | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        usage: JSONObject = {"usage": None} if self._reply.has_usage else {}
        return self._frame({"choices": [choice]} | usage | extension(periscope))

    def _frame(self, rest: JSONObject) -> bytes:
        """The frame of a chunk: what all of them begin with is encoded once."""
        return framed(self._head + b"," + dump_json(rest).removeprefix(b"{"))


def _logprobs(entries: Sequence[TokenLogprob]) -> JSONObject | None:
    if not entries:
        return None
    content = [
        _token(entry.token, entry.logprob) | {"top_logprobs": [_token(token, value) for token, value in entry.top]}
        for entry in entries
    ]
    return {"content": content, "refusal": None}


def _token(token: TokenText, logprob: float | None) -> JSONObject:
    return {"token": token.text, "logprob": json_logprob(logprob), "bytes": list(token.utf8)}


def encode_usage(usage: Usage) -> JSONObject:
    """Pure: the token counts, as all of OpenAI's completions tell them."""
    return {
        "prompt_tokens": usage.num_prompt_tokens,
        "completion_tokens": usage.num_completion_tokens,
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.num_cached_tokens},
        "completion_tokens_details": {
            "reasoning_tokens": usage.num_reasoning_tokens,
            "accepted_prediction_tokens": usage.num_accepted_tokens,
            "rejected_prediction_tokens": usage.num_rejected_tokens,
        },
    }


def extension(periscope: JSONObject | None) -> JSONObject:
    """The one field that is not OpenAI's; absent if empty."""
    return {} if periscope is None else {"periscope": periscope}
