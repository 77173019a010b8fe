"""The server as a client sees it: streamed chat completions and captions, with the times at which things arrive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.bench.contenders import user_wire
from periscope.bench.samples import Batch, Row
from periscope.bench.server import MODEL_NAME
from periscope.core import Finished, ReasoningDelta, TextDelta
from periscope.errors import PeriscopeError, RemoteAnswerBroken, RemoteUnreachable
from periscope.remote import Endpoint, OpenAIClient, Timeouts, caption

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.core import JSONObject, OutputEvent


#: Its name as a contender.
OUR_SERVER = "http"


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed completion. `caption_ms`: spent on captions of its pictures; None when it had none."""

    text: str
    row: Row
    num_prompt_tokens: int
    num_cached_tokens: int
    caption_ms: int | None


def client_of(url: str, api_key: str | None = None, *, max_silence_s: float | None = None) -> OpenAIClient:
    """A client for one server; there is no limit to patience with our own."""
    return OpenAIClient(Endpoint(f"{url}/v1", api_key, Timeouts(connect_s=None, silence_s=max_silence_s)))


async def chat(
    client: OpenAIClient,
    messages: Sequence[JSONObject],
    max_tokens: int,
    *,
    model: str = MODEL_NAME,
    max_tries: int = 1,
    arrived: Callable[[float], None] = lambda _: None,
) -> Answer:
    """Ask, greedily, and read to the end.

    Args:
        max_tries: for a connection that is dropped before anything is said; the time that costs is in the answer's.
        arrived: told of each token as it comes, by `time.perf_counter`.

    Raises:
        RemoteError: why there is no answer.
    """
    body: JSONObject = {"model": model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
    reading = StreamReading(time.perf_counter(), arrived)
    for number in range(1, max_tries + 1):
        try:
            async with aclosing(client.stream_chat(body)) as events:
                async for event in events:
                    reading.feed(event)
            break
        except (RemoteUnreachable, RemoteAnswerBroken) as error:
            has_begun = isinstance(error, RemoteAnswerBroken) and error.has_begun
            if has_begun or number == max_tries:
                raise
    return reading.answer()


class StreamReading:
    """Owns what one stream has said so far. `started`: when it was asked for, by `time.perf_counter`."""

    def __init__(self, started: float, arrived: Callable[[float], None] = lambda _: None) -> None:
        self._started = started
        self._arrived = arrived
        self._times_s: list[float] = []
        self._pieces: list[str] = []
        self._finished: Finished | None = None

    def feed(self, event: OutputEvent) -> None:
        """One event, as soon as it is there. What people see has a time, reasoning too."""
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
        """Who does not count tokens has one in every piece of text."""
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
    """A server, over sockets. Processor time is the server's alone.

    Args:
        model: what it is asked for.
        max_tries: see `chat`.
    """

    def __init__(
        self,
        client: OpenAIClient,
        cpu_s: Callable[[], float | None],
        *,
        name: str = OUR_SERVER,
        model: str = MODEL_NAME,
        max_tries: int = 1,
    ) -> None:
        self.name = name
        self._client = client
        self._cpu_s = cpu_s
        self._model = model
        self._max_tries = max_tries

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch:
        before = self._cpu_s()
        answers = await asyncio.gather(*(self._ask(prompt, max_tokens) for prompt in prompts))
        after = self._cpu_s()
        return Batch(
            tuple(answer.row for answer in answers), None if before is None or after is None else after - before
        )

    async def _ask(self, prompt: str, max_tokens: int) -> Answer:
        messages = [user_wire(prompt)]
        return await chat(self._client, messages, max_tokens, model=self._model, max_tries=self._max_tries)


async def captions(client: OpenAIClient, urls: Sequence[str], model: str | None) -> None:
    """Have pictures described, each in a request of its own, all together.

    Raises:
        PeriscopeError: one was not.
    """

    async def describe(url: str) -> None:
        (captioned,) = await caption(client, model, (url,))
        if captioned.text is None:
            raise PeriscopeError(f"The captioner failed: {captioned.error}")

    await asyncio.gather(*(describe(url) for url in urls))
