"""The server as a client sees it: streamed chat completions and captions, with the times at which things arrive."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
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


@dataclass(frozen=True, slots=True)
class Answer:
    """One streamed completion. `caption_ms`: spent on captions of its pictures; None when it had none."""

    text: str
    row: Row
    num_prompt_tokens: int
    num_cached_tokens: int
    caption_ms: int | None


def client_of(url: str, api_key: str | None = None) -> httpx.AsyncClient:
    """A client for one server; no proxies of the environment, and no limit to patience."""
    headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=None, trust_env=False)  # noqa: S113 - it is ours


async def chat(client: httpx.AsyncClient, messages: Sequence[JSONObject], max_tokens: int) -> Answer:
    """Ask, greedily, and read to the end.

    Raises:
        PeriscopeError: what the server said instead.
    """
    body = {
        "model": MODEL_NAME,
        "messages": list(messages),
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    reading = _Reading(time.perf_counter())
    async with client.stream("POST", "/v1/chat/completions", json=body) as response:
        if response.is_error:
            raise refusal(response.status_code, await response.aread())
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                reading.feed(json.loads(line.removeprefix("data: ")))
    return reading.answer()


class _Reading:
    """Owns what one stream has said so far."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._times_s: list[float] = []
        self._pieces: list[str] = []
        self._usage: JSONObject = {}
        self._caption_ms: int | None = None

    def feed(self, chunk: JSONObject) -> None:
        if "error" in chunk:
            raise PeriscopeError(f"The server failed: {chunk['error'].get('message')}")
        self._usage = chunk.get("usage") or self._usage
        if vision := (chunk.get("periscope") or {}).get("vision"):
            self._caption_ms = vision["caption_ms"]
        deltas = [choice["delta"] for choice in chunk["choices"]]
        if any(delta.get("content") or delta.get("reasoning_content") for delta in deltas):
            self._times_s.append(time.perf_counter() - self._started)
        self._pieces += [delta.get("content") or "" for delta in deltas]

    def answer(self) -> Answer:
        if not self._usage:
            raise PeriscopeError("The server ended an answer before it was complete.")
        times_s = self._times_s or [time.perf_counter() - self._started]  # an answer without a visible character
        return Answer(
            text="".join(self._pieces),
            row=Row(self._usage["completion_tokens"], tuple(times_s)),
            num_prompt_tokens=self._usage["prompt_tokens"],
            num_cached_tokens=(self._usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
            caption_ms=self._caption_ms,
        )


class HTTPContender:
    """The server, over sockets. Processor time is the server's alone."""

    name = "http"

    def __init__(self, client: httpx.AsyncClient, cpu_s: Callable[[], float | None]) -> None:
        self._client = client
        self._cpu_s = cpu_s

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch:
        before = self._cpu_s()
        asked = (chat(self._client, [user_wire(prompt)], max_tokens) for prompt in prompts)
        answers = await asyncio.gather(*asked)
        after = self._cpu_s()
        return Batch(
            tuple(answer.row for answer in answers), None if before is None or after is None else after - before
        )


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
        told: Any = json.loads(body)["error"]["message"]
    except (ValueError, LookupError, TypeError):
        told = "(no reason given)"
    return PeriscopeError(f"The server answered with status {status}: {told}")
