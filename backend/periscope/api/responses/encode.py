"""Responses, core to wire: a whole response, or the events of a stream. Knows no socket."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from periscope.api.answer_notes import answer_notes
from periscope.api.responses.output import COMPLETED, INCOMPLETE, Output, OutputForm, whole
from periscope.api.sse import comment_frame, data_frame
from periscope.api.status_wire import encode_wait
from periscope.api.wording import clip
from periscope.core import Finished, FinishReason, Waiting

if TYPE_CHECKING:
    from periscope.api.responses.schema import ResponsesWire, ToolWire
    from periscope.core import AnswerEvent, JSONObject, Usage, VisionUsage

FAILED: Final = "failed"
_IN_PROGRESS: Final = "in_progress"
#: What may be long of a request, as a response has it that says nothing of it.
_NOT_REPEATED: Final[JSONObject] = {
    "instructions": None,
    "metadata": {},
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "tools": [],
}


@dataclass(frozen=True, slots=True)
class ResponsesReply:
    """The fields of an answer that do not depend on the model's output, and its form.

    Attributes:
        model: the name in the request; the configured one if there is none.
        asked: the request, whose fields the answer repeats.
        left_out: places of tools in the request that were not offered to the model.
        is_stored: the response can be had again by its id.
        keep: stores the response when it is complete.
    """

    id: str
    model: str
    created_at: int
    asked: ResponsesWire
    form: OutputForm
    left_out: tuple[str, ...]
    is_stored: bool
    keep: Callable[[JSONObject], None]
    status_as_comments: bool = False


def encode_response(events: Sequence[AnswerEvent], reply: ResponsesReply) -> JSONObject:
    """All events of a request, `Finished` last, as one response."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    output = whole([event for event in events if not isinstance(event, (Waiting, Finished))], reply.form)
    for _ in _last_items(output, finished):
        pass
    return _finished(reply, output, finished)


def encode_count(events: Sequence[AnswerEvent]) -> JSONObject:
    """Pure: the prompt's tokens, which the last event of a request that only counts has."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    return {"object": "response.input_tokens", "input_tokens": finished.usage.num_prompt_tokens}


class EventEncoder:
    """Owns the state of a stream between events: the output so far, the numbers, and what the request waits for."""

    def __init__(self, reply: ResponsesReply) -> None:
        self._reply = reply
        self._output = Output(reply.form)
        self._numbers = itertools.count()
        self._waits_for: JSONObject | None = None

    def opening(self) -> bytes:
        """The frames of `response.created` and `response.in_progress`."""
        response = _response(self._reply, _IN_PROGRESS)
        return self._frames(
            {"type": kind, "response": response} for kind in ("response.created", "response.in_progress")
        )

    def event(self, event: AnswerEvent) -> bytes:
        """The events of a delta, or a heartbeat for a wait state unless it says what the last one said.

        Of `Finished`: the end of the item that grows, and `response.completed` or `response.incomplete`.
        """
        if isinstance(event, Waiting):
            told = encode_wait(event)
            is_news, self._waits_for = told != self._waits_for, told
            return self.heartbeat() if is_news else b""
        self._waits_for = None
        return self._frames(self._ending(event) if isinstance(event, Finished) else self._output.take(event))

    def heartbeat(self) -> bytes:
        """`response.in_progress` once more, with what the request waits for, if anything; or a comment, by setting.

        Not comments alone: Codex gives up when it has heard no event for five minutes, and OpenAI's own `keepalive`
        ends the streams of stricter SDKs. What is long in the response was told by the opening, and is left out.
        """
        if self._reply.status_as_comments:
            told = [f"{key} {clip(str(value))}" for key, value in (self._waits_for or {}).items()]
            return comment_frame(", ".join(told) or "keep-alive")
        response = _response(self._reply, _IN_PROGRESS, self._output.items) | _NOT_REPEATED
        event = {"type": "response.in_progress", "response": response}
        return self._frames([event | ({"periscope": self._waits_for} if self._waits_for else {})])

    def failure(self, error: JSONObject) -> bytes:
        """`response.failed`, which Codex reads, then `error`, which SDKs raise. Nothing follows it."""
        told = error["error"]
        self._drain(INCOMPLETE)
        response = _response(self._reply, FAILED, self._output.items) | {"store": False}  # only whole ones are kept
        response["error"] = {"code": told["code"], "message": told["message"]}
        flat = {key: told[key] for key in ("code", "message", "param")}
        return self._frames(
            [{"type": "response.failed", "response": response}, {"type": "error", **flat, "error": told}]
        )

    def _ending(self, finished: Finished) -> Iterator[JSONObject]:
        yield from _last_items(self._output, finished)
        response = _finished(self._reply, self._output, finished)
        yield {"type": f"response.{response['status']}", "response": response}

    def _drain(self, status: str) -> None:
        """End the item that grows without telling: what is cut off by an error was not finished."""
        for _ in self._output.end_all(status):
            pass

    def _frames(self, events: Iterator[JSONObject] | Sequence[JSONObject]) -> bytes:
        return b"".join(_frame(event | {"sequence_number": next(self._numbers)}) for event in events)


def _last_items(output: Output, finished: Finished) -> Iterator[JSONObject]:
    is_cut_off = finished.finish_reason is FinishReason.LENGTH
    yield from output.end_all(INCOMPLETE if is_cut_off else COMPLETED)
    if not is_cut_off:
        yield from output.fill()


def _finished(reply: ResponsesReply, output: Output, finished: Finished) -> JSONObject:
    is_cut_off = finished.finish_reason is FinishReason.LENGTH
    response = _response(reply, INCOMPLETE if is_cut_off else COMPLETED, output.items)
    if is_cut_off:
        response["incomplete_details"] = {"reason": "max_output_tokens"}
    else:
        response["completed_at"] = int(time.time())
    response |= {"usage": _usage(finished.usage)} | _notes(finished.vision, reply.left_out)
    if reply.is_stored:
        reply.keep(response)
    return response


def _response(reply: ResponsesReply, status: str, output: Sequence[JSONObject] = ()) -> JSONObject:
    """The response object, with all fields of OpenAI's."""
    asked = reply.asked
    return {
        "id": reply.id,
        "object": "response",
        "created_at": reply.created_at,
        "status": status,
        "background": False,
        "completed_at": None,
        "conversation": None,
        "error": None,
        "incomplete_details": None,
        "instructions": asked.instructions,
        "max_output_tokens": asked.max_output_tokens,
        "max_tool_calls": asked.max_tool_calls,
        "metadata": asked.metadata or {},
        "model": reply.model,
        "output": list(output),
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "previous_response_id": asked.previous_response_id,
        "prompt": None,
        "prompt_cache_key": asked.prompt_cache_key,
        "reasoning": _reasoning(asked),
        "safety_identifier": asked.safety_identifier,
        "service_tier": "default",
        "store": reply.is_stored,
        "temperature": asked.temperature,
        "text": _text(asked),
        "tool_choice": _tool_choice(asked),
        "tools": [_told(tool) for tool in asked.tools or ()],
        "top_logprobs": asked.top_logprobs or 0,
        "top_p": asked.top_p,
        "truncation": asked.truncation or "disabled",
        "usage": None,
        "user": asked.user,
    }


def _reasoning(asked: ResponsesWire) -> JSONObject:
    wire = asked.reasoning
    if wire is None:
        return {"effort": None, "summary": None}
    return {"effort": wire.effort, "summary": wire.summary or wire.generate_summary}


def _text(asked: ResponsesWire) -> JSONObject:
    wire = asked.text
    form = None if wire is None else wire.format
    told = {"type": "text"} if form is None else form.model_dump(by_alias=True, exclude_unset=True)
    return {"format": told, "verbosity": (wire.verbosity if wire else None) or "medium"}


def _tool_choice(asked: ResponsesWire) -> JSONObject | str:
    wire = asked.tool_choice
    if wire is None:
        return "auto"
    told = wire.model_dump(exclude_unset=True)
    return wire.type if set(told) == {"type"} and wire.type in ("none", "auto", "required") else told


def _told(tool: ToolWire) -> JSONObject:
    """A tool as the client sent it; a function also has the fields that SDKs read of every one."""
    told = tool.model_dump(exclude_unset=True)
    return {"description": None, "parameters": None, "strict": None} | told if tool.type == "function" else told


def _usage(usage: Usage) -> JSONObject:
    """Nothing is charged for writing to the prompt cache, so that no tokens count as written."""
    return {
        "input_tokens": usage.num_prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.num_cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.num_completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.num_reasoning_tokens},
        "total_tokens": usage.num_prompt_tokens + usage.num_completion_tokens,
    }


def _notes(vision: VisionUsage | None, left_out: Sequence[str]) -> JSONObject:
    """The one field that is not OpenAI's; absent if there is nothing to tell."""
    notes = answer_notes(vision, left_out)
    return {} if notes is None else {"periscope": notes}


def _frame(event: JSONObject) -> bytes:
    """One event under the name of its type."""
    return b"event: %s\n" % str(event["type"]).encode() + data_frame(event)
