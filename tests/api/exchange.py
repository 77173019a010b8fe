"""A raw ASGI client that sees each message as it is sent and can leave, and its streams taken apart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from typing import Any

from tests.api.driving import HELLO
from tests.api.gates import Gate


class Exchange:
    """One raw ASGI request: the test sees each message as it is sent, and may leave at any time."""

    def __init__(self, app: Any, body: Any = None, *, send_gate: Gate | None = None, **scope: Any) -> None:
        self._ahead = ""  # frames that have come and were not asked for yet
        self.messages: list[dict[str, Any]] = []
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._send_gate = send_gate
        self.send_error: Exception | None = None
        content = json.dumps(HELLO if body is None else body).encode()
        self.feed(content if scope.get("method") != "GET" else b"", more=False)
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost:7374")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 7374),
        } | scope
        call: Awaitable[None] = app(self.scope, self._incoming.get, self._send)
        self.task = asyncio.ensure_future(call)

    def feed(self, content: bytes, *, more: bool) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: dict[str, Any]) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.messages.append(message)
        self._sent.put_nowait(message)
        if self._send_gate is not None and message["type"] == "http.response.body":
            await self._send_gate.passed()

    async def status(self) -> int:
        message = await self._sent.get()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def frame(self) -> str:
        """The next piece of body, which in a stream is one frame or more."""
        if self._ahead:
            text, self._ahead = self._ahead, ""
            return text
        message = await self._sent.get()
        assert message["type"] == "http.response.body"
        return str(message["body"].decode())

    async def chunk(self) -> dict[str, Any]:
        """The next frame, which must be one chunk. Frames that are ready at the same time come as one piece of body."""
        frame, end, self._ahead = (await self.frame()).partition("\n\n")
        (value,) = chunks_of(frame + end)
        return value

    async def delta(self) -> dict[str, Any]:
        """The next delta that is not empty: heartbeats and wait states are passed over."""
        while not (delta := dict((await self.chunk())["choices"][0]["delta"])):
            pass
        return delta

    async def rest(self) -> str:
        """Everything from here to the end of the response."""
        await self.task
        assert not self.messages[-1].get("more_body", False)
        ahead, self._ahead = self._ahead, ""
        return ahead + "".join([await self.frame() for _ in range(self._sent.qsize())])


def frames_of(text: str) -> list[str]:
    """A stream's data, frame by frame; its framing must be exact."""
    *frames, rest = text.split("\n\n")
    assert rest == ""
    assert all("\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames if not frame.startswith(":")]


def chunks_of(text: str) -> list[dict[str, Any]]:
    """The JSON values of a stream, `[DONE]` left out."""
    return [json.loads(frame) for frame in frames_of(text) if frame != "[DONE]"]
