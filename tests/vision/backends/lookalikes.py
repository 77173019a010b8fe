"""Servers on real sockets that answer as vLLM, LMDeploy, Triton and TensorRT-LLM document it, or as broken ones do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from periscope.core import ModelState
from periscope.remote import Endpoint, OpenAIClient, Timeouts
from periscope.vision.backends.remote import RemoteCaptioner
from periscope.vision.backends.remote_server import RemoteServer

MODEL = "Qwen/Qwen2-VL-7B-Instruct"
CHAT, MODELS = "POST /v1/chat/completions", "GET /v1/models"
Change: TypeAlias = tuple[ModelState, ModelState, str | None]


@dataclass(frozen=True)
class Reply:
    """One answer. `body`: JSON, or bytes as they are. `cut`: the connection ends so many bytes before the body does."""

    body: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int = 0
    gate: asyncio.Event | None = None

    def encoded(self) -> bytes:
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        kind = "text/plain" if isinstance(self.body, bytes) else "application/json"
        headers = {"content-type": kind, "content-length": str(len(body)), "connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status} X", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + body[: len(body) - self.cut]


#: Closes the connection without a word.
SLAMMED = Reply(status=0)
Routes: TypeAlias = Mapping[str, Reply | Sequence[Reply]]


@dataclass
class Lookalike:
    """Owns what was asked. `bodies`: of the caption requests; `most`: of them, at once.

    Attributes:
        routes: may be changed while it runs; a sequence is gone through once, and its last reply stays.
    """

    routes: dict[str, Reply | Sequence[Reply]]
    url: str = ""
    asked: list[str] = field(default_factory=list)
    bodies: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    num_open: int = 0
    most: int = 0

    @property
    def num_captions(self) -> int:
        """Caption requests, the plain picture of a health check left out."""
        return sum(body["max_tokens"] > 1 for body in self.bodies)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if line)
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            what = head.partition(" HTTP/")[0]
            self.asked.append(what)
            self.keys.append(headers.get("authorization"))
            if body:
                self.bodies.append(json.loads(body))
            reply = self._reply(what)
            self.num_open += what == CHAT
            self.most = max(self.most, self.num_open)
            try:
                if reply.gate is not None:
                    await reply.gate.wait()
            finally:
                self.num_open -= what == CHAT
            if reply is not SLAMMED:
                writer.write(reply.encoded())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    def _reply(self, what: str) -> Reply:
        reply = self.routes.get(what, Reply({"detail": "Not Found"}, 404))
        if isinstance(reply, Reply):
            return reply
        first, *others = reply
        self.routes[what] = others or first
        return first


@asynccontextmanager
async def lookalike(routes: Routes) -> AsyncIterator[Lookalike]:
    """The server runs inside."""
    told, serving = Lookalike(dict(routes)), set[asyncio.Task[None]]()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.create_task(told.serve(reader, writer)))

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        told.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield told
        finally:
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)


@asynccontextmanager
async def captioner_at(
    base_url: str,
    backend: str = "vllm",
    *,
    wait_timeout_s: float = 60.0,
    max_waiting: int = 10,
    read_timeout_s: float = 60.0,
    key: str | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[RemoteCaptioner, list[Change]]]:
    """A captioner of this server, and every change of its state."""
    changes: list[Change] = []
    endpoint = Endpoint(base_url, api_key=key, timeouts=Timeouts(silence_s=read_timeout_s), max_answer_bytes=64 * 1024)
    with ThreadPoolExecutor(1) as threads:
        captioner = RemoteCaptioner(
            RemoteServer("eyes", backend, base_url, **{"model": MODEL, "num_retries": 1, **settings}),
            OpenAIClient(endpoint),
            encoding=threads,
            wait_timeout_s=wait_timeout_s,
            max_waiting=max_waiting,
            on_change=lambda *change: changes.append(change),
        )
        try:
            yield captioner, changes
        finally:
            await captioner.close()


def answer(text: str | None = "A red circle.", **more: Any) -> dict[str, Any]:
    """A whole chat completion, as OpenAI documents it."""
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "model": MODEL,
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": text}, "logprobs": None, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 80, "completion_tokens": 7, "total_tokens": 87},
        **more,
    }


def vllm() -> dict[str, Reply | Sequence[Reply]]:
    """vLLM, "OpenAI-Compatible Server": an empty /health, cards with `root` and `max_model_len`, nested errors."""
    card = {"id": MODEL, "object": "model", "owned_by": "vllm", "root": MODEL, "parent": None, "max_model_len": 32768}
    told = answer(prompt_logprobs=None, kv_transfer_params=None, service_tier=None, system_fingerprint=None)
    told["choices"][0] |= {"stop_reason": None, "token_ids": None}
    told["choices"][0]["message"] |= {"reasoning": None, "tool_calls": [], "refusal": None, "annotations": None}
    told["usage"]["prompt_tokens_details"] = None
    return {"GET /health": Reply(), MODELS: Reply({"object": "list", "data": [card]}), CHAT: Reply(told)}


def lmdeploy() -> dict[str, Reply | Sequence[Reply]]:
    """LMDeploy, "OpenAI Compatible Server" (multi_modal): a /health that is a monitor's snapshot, flat errors."""
    card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "lmdeploy", "root": MODEL, "parent": None}
    told = answer()
    told["choices"][0]["message"] |= {"reasoning_content": None, "tool_calls": None, "gen_tokens": None}
    return {
        "GET /health": Reply({"status": "healthy", "message": "", "last_update": 1.0}),
        MODELS: Reply({"object": "list", "data": [{**card, "permission": []}]}),
        CHAT: Reply(told),
    }


def triton() -> dict[str, Reply | Sequence[Reply]]:
    """Triton, "OpenAI-Compatible Frontend": /health/ready, no usage, every error a 400 with `detail`."""
    told = answer(usage=None, system_fingerprint=None)
    told["choices"][0]["message"] |= {"tool_calls": None, "function_call": None}
    card = {"id": MODEL, "created": 1, "object": "model", "owned_by": "Triton Inference Server"}
    return {
        "GET /health/ready": Reply(),
        MODELS: Reply({"object": "list", "data": [card]}),
        CHAT: Reply(told),
    }


def trtllm() -> dict[str, Reply | Sequence[Reply]]:
    """TensorRT-LLM, "trtllm-serve": /health, flat errors with a type; the same dialect as Triton's frontend."""
    card = {"id": MODEL, "object": "model", "created": 1, "owned_by": "tensorrt_llm"}
    told = answer()
    told["choices"][0] |= {"stop_reason": None, "disaggregated_params": None, "avg_decoded_tokens_per_iter": None}
    return {"GET /health": Reply(), MODELS: Reply({"object": "list", "data": [card]}), CHAT: Reply(told)}
