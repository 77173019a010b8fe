"""Completions, core to wire: a whole `text_completion`, or the chunks of a stream. Knows no socket."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periscope.api.openai.completion_logprobs import LogprobsEncoder
from periscope.api.openai.encode import DONE, WaitNotes, encode_usage, extension
from periscope.api.sse import comment_frame, data_frame
from periscope.core import Finished, TextDelta, Waiting

if TYPE_CHECKING:
    from periscope.core import JSONObject, OutputEvent


@dataclass(frozen=True, slots=True)
class CompletionReply:
    """The fields of every chunk of an answer, and its form.

    Attributes:
        model: the name in the request; the configured one if there is none.
        created: seconds since 1970.
        has_usage: a stream ends with a chunk of usage.
    """

    id: str
    model: str
    created: int
    has_usage: bool = False
    status_as_comments: bool = False

    def head(self) -> JSONObject:
        """The fields that do not change."""
        return {"id": self.id, "object": "text_completion", "created": self.created, "model": self.model}


def encode_completion(events: Sequence[OutputEvent], reply: CompletionReply) -> JSONObject:
    """Pure: all events of a request, `Finished` last, as one `text_completion`."""
    finished = events[-1]
    assert isinstance(finished, Finished)  # noqa: S101  # the feed hands out nothing else
    texts: list[list[TextDelta]] = [[] for _ in finished.finish_reasons]
    for event in events:
        if isinstance(event, TextDelta):
            texts[event.choice].append(event)
    choices = []
    for index, (deltas, reason) in enumerate(zip(texts, finished.finish_reasons, strict=True)):
        logprobs = LogprobsEncoder().encode([entry for delta in deltas for entry in delta.logprobs])
        choices.append(_choice(index, "".join(delta.text for delta in deltas), logprobs, reason))
    return reply.head() | {"choices": choices, "usage": encode_usage(finished.usage)}


@dataclass(slots=True)
class CompletionChunkEncoder:
    """Owns the state of a stream between chunks: what the request waits for, and where each choice's tokens are."""

    reply: CompletionReply
    _waits: WaitNotes = field(default_factory=WaitNotes)
    _logprobs: dict[int, LogprobsEncoder] = field(default_factory=dict)

    def opening(self) -> bytes:
        """An empty chunk, so that the client knows of the answer at once."""
        return self._chunk(_choice(0, ""))

    def event(self, event: OutputEvent) -> bytes:
        """The chunk of a text, or of a wait state unless it says what the last one said.

        Of `Finished`: the finish chunks, the usage chunk if wanted, and `[DONE]`.
        """
        if isinstance(event, Waiting):
            return self.heartbeat() if self._waits.take(event) else b""
        self._waits.end()
        if isinstance(event, Finished):
            return self._ending(event)
        if not isinstance(event, TextDelta) or not (event.text or event.logprobs):
            return b""
        logprobs = self._logprobs.setdefault(event.choice, LogprobsEncoder()).encode(event.logprobs)
        return self._chunk(_choice(event.choice, event.text, logprobs))

    def heartbeat(self) -> bytes:
        """A chunk with an empty text and what the request waits for, if anything; or a comment, by setting."""
        if self.reply.status_as_comments:
            return comment_frame(self._waits.comment)
        return self._chunk(_choice(0, ""), extension(self._waits.told))

    def failure(self, error: JSONObject) -> bytes:
        """The error as OpenAI streams it, which SDKs raise, then `[DONE]`. There is no finish reason."""
        return data_frame(error) + DONE

    def _ending(self, finished: Finished) -> bytes:
        ends = enumerate(finished.finish_reasons)
        frames = b"".join(self._chunk(_choice(index, "", finish_reason=reason)) for index, reason in ends)
        if self.reply.has_usage:
            frames += data_frame(self.reply.head() | {"choices": [], "usage": encode_usage(finished.usage)})
        return frames + DONE

    def _chunk(self, choice: JSONObject, extension: JSONObject | None = None) -> bytes:
        usage: JSONObject = {"usage": None} if self.reply.has_usage else {}
        return data_frame(self.reply.head() | {"choices": [choice]} | usage | (extension or {}))


def _choice(index: int, text: str, logprobs: JSONObject | None = None, finish_reason: str | None = None) -> JSONObject:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}
