"""The server as a client sees it: streamed chat completions and captions, with the times at which things arrive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx

from periscope.bench.contenders import user_wire
from periscope.bench.samples import Batch, Row
from periscope.bench.server import MODEL_NAME
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.core import JSONObject


#: Its name as a contender.
OUR_SERVER = "http"
#: Where a delta has what people see, by whichever name the server calls reasoning.
_VISIBLE = ("content", "reasoning_content", "reasoning")
_NO_REASON = "(no reason given)"


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed completion. `caption_ms`: spent on captions of its pictures; None when it had none."""

    text: str
    row: Row
    num_prompt_tokens: int
    num_cached_tokens: int
    caption_ms: int | None


def client_of(url: str, api_key: str | None = None, *, max_silence_s: float | None = None) -> httpx.AsyncClient:
    """A client for one server; no proxies of the environment, and no limit to patience with our own servers."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    timeout = httpx.Timeout(None, read=max_silence_s)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, trust_env=False)


async def chat(
    client: httpx.AsyncClient,
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
        PeriscopeError: what the server said instead.
    """
    body = {
        "model": model,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reading = StreamReading(time.perf_counter(), arrived)
    response = await _begun(client, client.build_request("POST", "/v1/chat/completions", json=body), max_tries)
    async with aclosing(response):
        if response.is_error:
            raise refusal(response.status_code, await response.aread())
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                reading.feed(json.loads(line.removeprefix("data: ")))
    return reading.answer()


async def _begun(client: httpx.AsyncClient, request: httpx.Request, max_tries: int) -> httpx.Response:
    """An answer of which only the headers are read."""
    for _ in range(max_tries - 1):
        with suppress(httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError):
            return await client.send(request, stream=True)
    return await client.send(request, stream=True)


class StreamReading:
    """Owns what one stream has said so far. `started`: when it was asked for, by `time.perf_counter`."""

    def __init__(self, started: float, arrived: Callable[[float], None] = lambda _: None) -> None:
        self._started = started
        self._arrived = arrived
        self._times_s: list[float] = []
        self._pieces: list[str] = []
        self._usage: JSONObject = {}
        self._caption_ms: int | None = None
        self._has_finished = False

    def feed(self, chunk: JSONObject) -> None:
        """One chunk, as soon as it is there."""
        if "error" in chunk:
            raise PeriscopeError(f"The server failed: {_reason_in(chunk)}")
        self._usage = chunk.get("usage") or self._usage
        if vision := (chunk.get("periscope") or {}).get("vision"):
            self._caption_ms = vision["caption_ms"]
        choices = chunk.get("choices") or []
        self._has_finished |= any(choice.get("finish_reason") for choice in choices)
        deltas = [choice["delta"] for choice in choices]
        if any(delta.get(key) for delta in deltas for key in _VISIBLE):
            now = time.perf_counter()
            self._times_s.append(now - self._started)
            self._arrived(now)
        self._pieces += [delta.get("content") or "" for delta in deltas]

    def answer(self) -> Answer:
        """Who does not count tokens has one in every piece of text."""
        if not self._has_finished:
            raise PeriscopeError("The server ended an answer before it was complete.")
        times_s = self._times_s or [time.perf_counter() - self._started]  # an answer without a visible character
        return Answer(
            text="".join(self._pieces),
            row=Row(self._usage.get("completion_tokens", len(times_s)), tuple(times_s)),
            num_prompt_tokens=self._usage.get("prompt_tokens", 0),
            num_cached_tokens=(self._usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            caption_ms=self._caption_ms,
        )


class HTTPContender:
    """A server, over sockets. Processor time is the server's alone.

    Args:
        model: what it is asked for.
        max_tries: see `chat`.
    """

    def __init__(
        self,
        client: httpx.AsyncClient,
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


async def captions(client: httpx.AsyncClient, urls: Sequence[str], model: str | None) -> None:
    """Have pictures described, each in a request of its own, all together.

    Raises:
        PeriscopeError: one was not.
    """

    async def describe(url: str) -> None:
        response = await client.post("/api/captions", json={"model": model, "images": [url]})
        if response.is_error:
            raise refusal(response.status_code, response.content)
        (told,) = response.json()["captions"]
        if told["text"] is None:
            raise PeriscopeError(f"The captioner failed: {told['error']}")

    await asyncio.gather(*(describe(url) for url in urls))


def refusal(status: int, body: bytes) -> PeriscopeError:
    """Pure: an answer that is no success."""
    try:
        told = _reason_in(json.loads(body))
    except ValueError:
        told = _NO_REASON
    return PeriscopeError(f"The server answered with status {status}: {told}")


def _reason_in(body: Any) -> str:
    """Our servers say `{"error": {"message": ...}}`, others say as much in other places."""
    error = body.get("error", body.get("detail")) if isinstance(body, dict) else None
    told = error.get("message") if isinstance(error, dict) else error
    return str(told) if told else _NO_REASON
