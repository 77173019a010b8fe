"""Asking servers on real sockets for captions: what tests of the remote captioner share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Waiting
from periscope.errors import CaptionFailed, ServerBusy
from periscope.vision.backends.remote import RemoteCaptioner
from periscope.vision.captioner import CaptionRequest
from tests.vision.backends.lookalikes import (
    Change,
    Lookalike,
    Reply,
    Routes,
    captioner_at,
    lookalike,
)
from tests.vision.fakes import rgb_image, run

PATIENCE_S = 60.0
Use = Callable[[RemoteCaptioner, Lookalike, list[Change]], Awaitable[None]]


def against(routes: Routes, use: Use, backend: str = "vllm", **settings: Any) -> None:
    async def test() -> None:
        async with (
            asyncio.timeout(PATIENCE_S),
            lookalike(routes) as server,
            captioner_at(f"{server.url}/v1", backend, **settings) as (captioner, changes),
        ):
            await use(captioner, server, changes)

    run(test())


def ignore(_: Waiting) -> None:
    """Nobody listens."""


async def captions(captioner: RemoteCaptioner, *names: str, timeout_s: float = PATIENCE_S) -> list[str]:
    """What became of each image: the caption, the reason of its failure, or "busy"."""
    request = CaptionRequest(tuple(map(rgb_image, names)), tuple(f"What is {n}?" for n in names), 99, timeout_s)
    return [word(outcome) for outcome in await captioner.caption(request, ignore)]


def word(outcome: CaptionOutcome) -> str:
    match outcome:
        case Caption(text):
            return text
        case CaptionFailed():
            return outcome.reason
        case ServerBusy():
            return f"busy {outcome.retry_after_s}"


def error(message: str, status: int, **headers: str) -> Reply:
    told = {"error": {"message": message, "type": "X", "param": None, "code": status}}
    return Reply(told, status, {name.replace("_", "-"): value for name, value in headers.items()})


FLAT = {"object": "error", "message": "boom", "type": "InternalServerError", "code": 500}
HTML = Reply(b"<html><body>hello</body></html>", headers={"content-type": "text/html"})
