"""The three tools by the SDK's own client, over a sight that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from mcp import Client, types

from periscope.core import CaptionedImage, Finished, FinishReason, ImagePart, OutputEvent, TextDelta, Usage
from periscope.errors import PeriscopeError, ServerBusy
from periscope.mcp_server import AllowedFolders
from periscope.mcp_server.tools import image_server
from tests.api.driving import in_loop

DATA = "data:image/png;base64,AAAA"


@dataclass
class PlayedSight:
    """Says what it is told to; `ask` never ends if there is no answer."""

    seen: CaptionedImage = CaptionedImage("A red circle.", None, 8, 4, "eyes", verbatim="STOP")
    answer: str | None = "It is red."
    end: Literal[FinishReason.STOP, FinishReason.LENGTH] | None = FinishReason.STOP
    error: PeriscopeError | None = None
    images: list[str] = field(default_factory=list)
    asking: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    async def caption(self, image: ImagePart) -> CaptionedImage:
        self.images.append(image.url)
        if self.error:
            raise self.error
        return self.seen

    async def read(self, image: ImagePart) -> CaptionedImage:
        self.images.append(image.url)
        return replace(self.seen, text=None)

    async def ask(self, image: ImagePart, question: str) -> AsyncGenerator[OutputEvent, None]:
        self.images.append(image.url)
        self.asking.set()
        try:
            if self.answer is None:
                await asyncio.Event().wait()
            yield TextDelta(f"{question} {self.answer}")
            if self.end:
                yield Finished(self.end, Usage(1, 1))
        finally:
            self.stopped.set()

    async def loading(self) -> str | None:
        return "Loading eyes, 40%."


async def called(sight: PlayedSight, tool: str, **arguments: Any) -> tuple[Any, str]:
    """What the tool says, structured, or None and its error."""
    async with Client(image_server(sight, AllowedFolders())) as client:
        result = await client.call_tool(tool, arguments)
    assert isinstance(result.content[0], types.TextContent)
    return (None if result.is_error else result.structured_content), result.content[0].text


@in_loop
async def test_each_tool_tells_what_was_seen() -> None:
    """As structured content; an answer that was cut off says so."""
    told, _ = await called(PlayedSight(), "describe_image", image=DATA)
    assert told == {"description": "A red circle.", "text": "STOP", "width": 8, "height": 4, "answer": None}
    told, _ = await called(PlayedSight(), "describe_image", image=DATA, question="Which colour?")
    assert told["answer"] == "Which colour? It is red."
    assert (await called(PlayedSight(), "read_text", image=DATA))[0] == {"text": "STOP"}
    told, _ = await called(PlayedSight(end=FinishReason.LENGTH), "ask_about_image", image=DATA, question="What?")
    assert told == {"answer": "What? It is red.", "is_complete": False}


@in_loop
async def test_whatever_goes_wrong_is_told_to_the_model() -> None:
    """Refusals, failed captions, answers without an end, wrong arguments: with words that help."""
    failed = CaptionedImage(None, "the captioner timed out", 8, 4, "eyes")
    for sight, tool, arguments, reason in (
        (PlayedSight(error=ServerBusy("The queue is full.")), "describe_image", {"image": DATA}, "The queue is full."),
        (PlayedSight(seen=failed), "describe_image", {"image": DATA}, "the captioner timed out"),
        (PlayedSight(seen=failed), "read_text", {"image": DATA}, "the captioner timed out"),
        (PlayedSight(end=None), "ask_about_image", {"image": DATA, "question": "What?"}, "ended before"),
        (PlayedSight(), "ask_about_image", {"image": DATA, "question": ""}, "at least 1 character"),
        (
            PlayedSight(),
            "ask_about_image",
            {"question": 5},
            "ask_about_image: `image` is missing. `question` is wrong: ",
        ),
        (
            PlayedSight(),
            "describe_image",
            {"image": DATA, "prompt": "?"},
            "no argument 'prompt'. It takes image, question",
        ),
        (PlayedSight(), "read_text", {"image": "/etc/passwd"}, "--allow"),
    ):
        told, text = await called(sight, tool, **arguments)
        assert told is None
        assert reason in text
        assert "pydantic" not in text


@in_loop
async def test_a_call_that_is_given_up_ends_its_work() -> None:
    """Until then the client is told what is waited for."""
    sight, told = PlayedSight(answer=None), asyncio.Event()
    messages: list[str | None] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:  # noqa: ARG001 - the SDK's shape
        messages.append(message)
        told.set()

    async with Client(image_server(sight, AllowedFolders())) as client:
        arguments = {"image": DATA, "question": "What?"}
        call = asyncio.create_task(client.call_tool("ask_about_image", arguments, progress_callback=hear))
        await sight.asking.wait()
        await told.wait()
        call.cancel()
        await sight.stopped.wait()
        with pytest.raises(asyncio.CancelledError):
            await call
    assert messages[0] == "Loading eyes, 40%."


@in_loop
async def test_the_folders_that_a_client_shares_are_allowed(tmp_path: Path) -> None:
    """Its roots, as Claude Code has them; files elsewhere stay out of reach."""
    (tmp_path / "a.png").write_bytes(b"picture")

    async def roots(context: Any) -> types.ListRootsResult:  # noqa: ARG001 - the SDK's shape
        return types.ListRootsResult(roots=[types.Root(uri=tmp_path.as_uri())])

    server = image_server(PlayedSight(), AllowedFolders())
    async with Client(server, mode="legacy", list_roots_callback=roots) as client:
        assert not (await client.call_tool("read_text", {"image": str(tmp_path / "a.png")})).is_error
        assert (await client.call_tool("read_text", {"image": "/etc/passwd"})).is_error
