"""The control routes of another Periscope: what a newer server adds is kept, and what is no answer is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from periscope.core import JSONObject
from periscope.errors import RemoteAnswerBroken
from periscope.remote import Endpoint, OpenAIClient, Snapshot, events, read_status
from tests.cli.stub import stub_server

MINIMAL = {"schema_version": 1, "server": {"state": "ready"}}


async def status_of(url: str) -> Snapshot:
    async with OpenAIClient(Endpoint(f"{url}/v1")) as client:
        return await read_status(client)


async def events_of(url: str) -> list[tuple[str, JSONObject]]:
    async with OpenAIClient(Endpoint(f"{url}/v1")) as client:
        return [event async for event in events(client)]


def test_a_snapshot_of_another_version_can_be_read() -> None:
    """Fields that are not there have a value that means nothing, and fields that are new are passed on."""
    newer = {**MINIMAL, "models": [{"id": "m", "colour": "red"}], "weather": "fine"}
    with stub_server(json.dumps(newer).encode()) as stub:
        snapshot = asyncio.run(status_of(stub.url))
    assert (snapshot.models[0].state, snapshot.models[0].is_resident) == ("unloaded", False)
    told = snapshot.model_dump()
    assert (told["models"][0]["colour"], told["weather"]) == ("red", "fine")


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"<html>", b'{"schema_version": 2, "server": {"state": "x"}}'])
def test_what_is_no_snapshot_is_told_with_the_server(body: bytes) -> None:
    """Also one whose fields have another meaning by now."""
    with stub_server(body) as stub, pytest.raises(RemoteAnswerBroken) as broken:
        asyncio.run(status_of(stub.url))
    assert stub.url in broken.value.message


def test_events_come_with_their_names_until_the_stream_ends() -> None:
    """Heartbeats are no events; data that is no object is told."""
    stream = b': keep-alive\n\nid: 1\nevent: snapshot\ndata: {"a": 1}\n\nevent: request.end\ndata: {"id": "x"}\n\n'
    with stub_server(stream) as stub:
        assert asyncio.run(events_of(stub.url)) == [("snapshot", {"a": 1}), ("request.end", {"id": "x"})]
    with stub_server(b"event: snapshot\ndata: [1]\n\n") as stub, pytest.raises(RemoteAnswerBroken, match="event"):
        asyncio.run(events_of(stub.url))
