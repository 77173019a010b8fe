"""A server as its clients see it: streamed chat completions and captions, with arrival times. Event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.contenders import Ask, user_wire
from periscope.bench.host_time import HostLog
from periscope.bench.samples import Batch, Row
from periscope.bench.server import DEMO_PAIR, MODEL_NAME, serving
from periscope.bench.waiting import TIME_LIMIT_S, within
from periscope.core import Finished, ReasoningDelta, TextDelta
from periscope.errors import PeriscopeError, RemoteAnswerBroken, RemoteUnreachable
from periscope.remote import Endpoint, OpenAIClient, Timeouts, caption

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.bench.host_time import HostClock
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
    model: str = MODEL_NAME,
    max_tries: int = 1,
    arrived: Callable[[float], None] = lambda _: None,
) -> Answer:
    """Send one greedy chat completion and read its stream to the end.

    Args:
        max_tries: attempts when the connection is dropped before the first token; the answer's times include all.
        arrived: called with the time of each token as it arrives, by `time.perf_counter`.

    Raises:
        RemoteError: the server cannot be reached, refuses the request, or breaks off.
    """
    body: JSONObject = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
    recorder = StreamRecorder(time.perf_counter(), arrived)
    for number in range(1, max_tries + 1):
        try:
            async with aclosing(client.stream_chat(body)) as events:
                async for event in events:
                    recorder.feed(event)
            break
        except (RemoteUnreachable, RemoteAnswerBroken) as error:
            has_begun = isinstance(error, RemoteAnswerBroken) and error.has_begun
            if has_begun or number == max_tries:
                raise
    return recorder.answer()


class StreamRecorder:
    """Owns the text and arrival times of one stream so far. `started`: when it was sent, by `time.perf_counter`."""

    def __init__(self, started: float, arrived: Callable[[float], None] = lambda _: None) -> None:
        self._started = started
        self._arrived = arrived
        self._times_s: list[float] = []
        self._pieces: list[str] = []
        self._finished: Finished | None = None

    def feed(self, event: OutputEvent) -> None:
        """Record one event on arrival. Answer text and reasoning both get a time."""
        match event:
            case TextDelta(text) | ReasoningDelta(text):
                now = time.perf_counter()
                self._times_s.append(now - self._started)
                self._arrived(now)
                if isinstance(event, TextDelta):
                    self._pieces.append(text)
            case Finished():
                self._finished = event

    def answer(self) -> Answer:
        """The completed answer. For a server that reports no usage, every piece of text counts as one token.

        Raises:
            PeriscopeError: the stream ended before the answer was complete.
        """
        if self._finished is None:
            raise PeriscopeError("The server ended an answer before it was complete.")
        usage, vision = self._finished.usage, self._finished.vision
        times_s = self._times_s or [time.perf_counter() - self._started]  # an answer without a visible character
        return Answer(
            text="".join(self._pieces),
            row=Row(usage.num_completion_tokens or len(times_s), tuple(times_s)),
            num_prompt_tokens=usage.num_prompt_tokens,
            num_cached_tokens=usage.num_cached_tokens,
            caption_ms=None if vision is None else vision.caption_ms,
        )


class HTTPContender:
    """A server over HTTP. `cpu_s` counts the server's CPU time, without the client's.

    Args:
        host_clock: makes a clock of the server's Python threads for one batch; None = unknown.
        model: the model name that requests use.
        max_tries: see `chat`.
        limit_s: how long a batch may take.
    """

    def __init__(
        self,
        client: OpenAIClient,
        cpu_s: Callable[[], float | None],
        *,
        host_clock: Callable[[], HostClock | None] = lambda: None,
        name: str = OUR_SERVER,
        model: str = MODEL_NAME,
        max_tries: int = 1,
        limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self.name = name
        self._limit_s = limit_s
        self._client = client
        self._cpu_s = cpu_s
        self._host_clock = host_clock
        self._model = model
        self._max_tries = max_tries

    async def run(self, asks: Sequence[Ask]) -> Batch:
        host = HostLog(self._host_clock())
        before, started = self._cpu_s(), time.perf_counter()
        async with within(self._limit_s, f"{self.name} with {len(asks)} at once"):
            rows = await asyncio.gather(*(self._answer(ask, started, host) for ask in asks))
        after = self._cpu_s()
        return Batch(tuple(rows), None if before is None or after is None else after - before, host.stamps)

    async def _answer(self, ask: Ask, started: float, host: HostLog) -> Row:
        await asyncio.sleep(ask.after_s)
        sent_s = time.perf_counter() - started
        messages = [user_wire(ask.prompt)]
        answer = await chat(
            self._client,
            messages,
            ask.max_tokens,
            model=self._model,
            max_tries=self._max_tries,
            arrived=lambda now: host.note(now - started),
        )
        return Row(answer.row.num_tokens, tuple(sent_s + time_s for time_s in answer.row.times_s), sent_s)


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
