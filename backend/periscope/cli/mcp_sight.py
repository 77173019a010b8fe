"""What `periscope mcp` sees with: the running server, or models of its own process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING

from periscope.cli.exits import CommandFailed
from periscope.core import (
    CaptionedImage,
    Finished,
    GenerationRequest,
    ImagePart,
    JSONObject,
    ModelState,
    OutputEvent,
    new_id,
)
from periscope.errors import RemoteUnreachable

if TYPE_CHECKING:
    from periscope.cli.client import Server
    from periscope.config import Config
    from periscope.mcp_server import Sight
    from periscope.runtime import Runtime


class ServerSight:
    """A `Sight` by a running server. `model`: None = its default one."""

    def __init__(self, server: Server, model: str | None) -> None:
        self._server = server
        self._model = model

    async def caption(self, image: ImagePart) -> CaptionedImage:
        return await self._server.caption(self._model, image)

    async def read(self, image: ImagePart) -> CaptionedImage:
        return await self._server.caption(self._model, image, describe=False)

    async def ask(self, image: ImagePart, question: str) -> AsyncGenerator[OutputEvent, None]:
        from periscope.cli.ask import to_messages, wire_of

        messages = [wire_of(message) for message in to_messages(question, (image,), None)]
        body: JSONObject = {"messages": messages} | ({} if self._model is None else {"model": self._model})
        async with aclosing(self._server.chat(body)) as events:
            async for event in events:
                yield event

    async def loading(self) -> str | None:
        for row in (await self._server.status()).models:
            if row.state == ModelState.LOADING:
                return _loading(row.id, row.load.progress if row.load else None)
        return None


class RuntimeSight:
    """A `Sight` by a runtime of this process. `model`: None = its default one."""

    def __init__(self, runtime: Runtime, model: str | None) -> None:
        self._runtime = runtime
        self._model = model or ""

    async def caption(self, image: ImagePart) -> CaptionedImage:
        (captioned,) = await self._runtime.service.caption(self._model, (image,))
        return captioned

    async def read(self, image: ImagePart) -> CaptionedImage:
        (read,) = await self._runtime.service.read(self._model, (image,))
        return read

    async def ask(self, image: ImagePart, question: str) -> AsyncGenerator[OutputEvent, None]:
        from periscope.api.feed import EventFeed, until_finished
        from periscope.cli.ask import to_messages

        request = GenerationRequest(new_id("mcp-"), self._model, to_messages(question, (image,), None))
        async with EventFeed(until_finished(self._runtime.service.stream(request))) as feed:
            finished = False
            while not finished:
                if (event := await feed.next()) is not None:
                    yield event
                    finished = isinstance(event, Finished)

    async def loading(self) -> str | None:
        for status in self._runtime.service.statuses():
            if status.state is ModelState.LOADING:
                done, total = status.load_done_bytes, status.load_total_bytes
                return _loading(status.name, done / total if done is not None and total else None)
        return None


class FoundSight:
    """A `Sight` by the server that runs when a call comes, else by a runtime of our own. Event loop only.

    Owns the runtime, which the first call that finds no server starts without models: each is loaded when it is used.
    From then on it serves all calls, so that no model is loaded a second time elsewhere.

    Args:
        url: the server to ask; without it one is looked for, and there is a runtime if none is found.
    """

    def __init__(self, config: Config, model: str | None, url: str | None) -> None:
        self._config = config
        self._model = model
        self._url = url
        self._used: Sight | None = None
        self._runtime: Runtime | None = None
        self._finding = asyncio.Lock()

    async def caption(self, image: ImagePart) -> CaptionedImage:
        return await (await self._find()).caption(image)

    async def read(self, image: ImagePart) -> CaptionedImage:
        return await (await self._find()).read(image)

    async def ask(self, image: ImagePart, question: str) -> AsyncGenerator[OutputEvent, None]:
        async with aclosing((await self._find()).ask(image, question)) as events:
            async for event in events:
                yield event

    async def loading(self) -> str | None:
        return None if self._used is None else await self._used.loading()

    async def close(self) -> None:
        """End the runtime, if there is one. Idempotent."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            await runtime.stop()

    async def _find(self) -> Sight:
        """Raises `RemoteUnreachable`: a server was named, and does not answer."""
        from periscope.cli.client import find_server

        async with self._finding:
            if self._runtime is None or self._used is None:
                try:
                    server = await asyncio.to_thread(find_server, self._url, self._config)
                except CommandFailed as error:
                    raise RemoteUnreachable(error.message) from None
                self._used = ServerSight(server, self._model) if server else await self._start()
            return self._used

    async def _start(self) -> Sight:
        from periscope.cli.in_process import preloading
        from periscope.cli.quick_imports import import_quickly
        from periscope.runtime import Runtime

        import_quickly(self._config)
        runtime = Runtime(preloading(self._config, set()))
        try:
            await runtime.start()
        except BaseException:
            await runtime.stop()
            raise
        self._runtime = runtime
        return RuntimeSight(runtime, self._model)


def _loading(model: str, progress: float | None) -> str:
    return f"Loading {model}." if progress is None else f"Loading {model}, {progress:.0%}."
