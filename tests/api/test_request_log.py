"""A request that the server itself ends is still answered in the API's words."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from periscope.api.request_log import RequestLog
from tests.api.driving import in_loop

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

SCOPE = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": []}


async def nothing() -> Message:
    return {"type": "http.disconnect"}


@pytest.mark.parametrize("has_begun", [False, True], ids=["nothing sent yet", "in a stream"])
@in_loop
async def test_a_request_cut_off_by_the_end_of_the_server_may_be_sent_again(*, has_begun: bool) -> None:
    """Nothing said yet, it is a 503 with `Retry-After`; an answer that has begun gets no second one from here."""
    sent: list[Message] = []
    is_waiting = asyncio.Event()

    async def send(message: Message) -> None:
        sent.append(message)

    async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
        if has_begun:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        is_waiting.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(RequestLog(endless)(dict(SCOPE), nothing, send))
    await is_waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    if has_begun:
        assert [message["type"] for message in sent] == ["http.response.start"]
        return
    start, body = sent
    assert start["status"] == 503
    assert b"retry-after" in dict(start["headers"])
    assert json.loads(body["body"])["error"]["code"] == "server_stopping"
