"""How the tests of the client ask a server."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from periscope.core import OutputEvent
from periscope.remote import Endpoint, OpenAIClient

HELLO: dict[str, Any] = {"messages": [{"role": "user", "content": "Hello"}]}


def endpoint_of(url: str, **settings: Any) -> Endpoint:
    return Endpoint(f"{url}/v1", **settings)


async def read(client: OpenAIClient, body: dict[str, Any] = HELLO) -> list[OutputEvent]:
    async with aclosing(client.stream_chat(body)) as events:
        return [event async for event in events]
