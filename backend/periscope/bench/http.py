"""A server as its clients see it: streamed chat completions and captions, with arrival times. Event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.samples import Row
from periscope.bench.server import DEMO_PAIR, MODEL_NAME, serving
from periscope.core import Finished, FinishReason, ReasoningDelta, TextDelta
from periscope.errors import PeriscopeError
from periscope.remote import Endpoint, OpenAIClient, Timeouts, caption

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.core import JSONObject, OutputEvent


#: The name of our server as a contender.
OUR_SERVER = "http"
#: No server may be silent for longer. Some keep their clients waiting for ever after their worker thread has died.
MAX_SILENCE_S = 300.0


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed completion. `caption_ms`: time spent on captions of its pictures; None when it had none."""

    text: str
    row: Row
    num_prompt_tokens: int
    num_cached_tokens: int
    caption_ms: int | None


def client_of(url: str, api_key: str | None = None, *, max_silence_s: float = MAX_SILENCE_S) -> OpenAIClient:
    """A client for one server, which gives up after so much silence."""
    return OpenAIClient(Endpoint(f"{url}/v1", api_key, Timeouts(connect_s=max_silence_s, silence_s=max_silence_s)))


@asynccontextmanager
async def client_of_server(url: str | None, api_key: str | None) -> AsyncIterator[OpenAIClient]:
    """A client for the server at `url`; None = for one with the embedded pair, which runs inside the context.

    Raises:
        PeriscopeError: the server did not start.
    """
    if url is not None:
        async with client_of(url, api_key) as client:
            yield client
        return
    async with serving(DEMO_PAIR) as server, client_of(server.url) as client:
        yield client


async def chat(
    client: OpenAIClient,
    messages: Sequence[JSONObject],
    max_tokens: int,
    *,
    arrived: Callable[[float], None] = lambda _: None,
) -> Answer:
    """Send one greedy chat completion and read its stream to the end.

    Args:
        arrived: called with the time of each token as it arrives, by `time.perf_counter`.

    Raises:
        RemoteError: the server cannot be reached, refuses the request, or breaks off.
    """
    recorder = StreamRecorder(time.perf_counter(), arrived)
    async with aclosing(client.stream_chat(chat_body(MODEL_NAME, messages, max_tokens))) as events:
        async for event in events:
            recorder.feed(event, time.perf_counter())
    return recorder.answer()


def chat_body(model: str, messages: Sequence[JSONObject], max_tokens: int) -> JSONObject:
    """Pure: the request for a greedy chat completion."""
    return {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}


class StreamRecorder:
    """Owns the text and arrival times of one stream so far. `started`: when it was sent, by `time.perf_counter`."""

    def __init__(self, started: float, arrived: Callable[[float], None] = lambda _: None) -> None:
        self._started = started
        self._arrived = arrived
        self._times_s: list[float] = []
        self._pieces: list[str] = []
        self._finished: Finished | None = None
        self._ended_s = 0.0

    def feed(self, event: OutputEvent, now: float) -> None:
        """Record one event that arrived at `now`. Answer text and reasoning both get a time."""
        match event:
            case TextDelta(text) | ReasoningDelta(text):
                self._times_s.append(now - self._started)
                self._arrived(now)
                if isinstance(event, TextDelta):
                    self._pieces.append(text)
            case Finished():
                self._finished, self._ended_s = event, now - self._started

    def answer(self) -> Answer:
        """The completed answer. For a server that reports no usage, every piece of text counts as one token.

        An end token has no text: it came when the end of the answer was told, as for contenders in this process.

        Raises:
            PeriscopeError: the stream ended before the answer was complete.
        """
        if self._finished is None:
            raise PeriscopeError("The server ended an answer before it was complete.")
        usage, vision = self._finished.usage, self._finished.vision
        num_tokens = usage.num_completion_tokens or len(self._times_s)
        has_end_token = num_tokens > len(self._times_s) and self._finished.finish_reason is not FinishReason.LENGTH
        times_s = [*self._times_s]
        if has_end_token or not times_s:  # or an answer without a visible character
            times_s.append(self._ended_s)
        return Answer(
            text="".join(self._pieces),
            row=Row(num_tokens or len(times_s), tuple(times_s)),
            num_prompt_tokens=usage.num_prompt_tokens,
            num_cached_tokens=usage.num_cached_tokens,
            caption_ms=None if vision is None else vision.caption_ms,
        )


async def captions(client: OpenAIClient, urls: Sequence[str], model: str | None) -> None:
    """Request captions for pictures, one request each, all at the same time.

    Raises:
        PeriscopeError: a caption failed.
    """

    async def describe(url: str) -> None:
        (captioned,) = await caption(client, model, (url,))
        if captioned.text is None:
            raise PeriscopeError(f"The captioner failed: {captioned.error}")

    await asyncio.gather(*(describe(url) for url in urls))
