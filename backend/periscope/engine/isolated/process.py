"""The inside of a captioner's own process: an ordinary `VisionLanguageEngine` behind a pair of pipes.

Everything here runs on the process's only event loop; the model has its worker thread as everywhere. The process lives
as long as the pipe from the server. When that ends, because the server closed it or is gone in whatever way, so does
the process, at once and whatever the model is doing: there is nothing to put in order, the system takes memory back.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import BinaryIO, NoReturn

from periscope.engine.config import EngineConfig
from periscope.engine.isolated.messages import (
    Begun,
    Cancel,
    Describe,
    Described,
    Dropped,
    Failed,
    Load,
    Loaded,
    Progress,
    ReleaseMemory,
    Reply,
    frame_of,
    next_message,
)
from periscope.engine.vision.vision_language import VisionLanguageEngine
from periscope.errors import EngineClosed, PeriscopeError

logger = logging.getLogger(__name__)

#: How often it is looked whether a cancelled row has left the batch: a worker tells nobody.
_LOOK_S = 0.02


def run(pipe_to_server: int) -> NoReturn:
    """Serve until the server closes its end. Never returns; does not run what is registered for the exit.

    Args:
        pipe_to_server: file descriptor that replies are written to; requests come in by standard input.
    """
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    try:
        with os.fdopen(pipe_to_server, "wb") as replies:
            asyncio.run(_CaptionerProcess(replies).serve())
    except BaseException:
        logger.exception("the captioner's process ends by an error")
    finally:
        os._exit(1)


class _CaptionerProcess:
    """Owns the engine and the descriptions under way, by number. Event loop only."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._engine: VisionLanguageEngine | None = None
        self._describing: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Take requests until the pipe ends."""
        requests = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(requests), sys.stdin)
        async with asyncio.TaskGroup() as tasks:
            while (request := await next_message(requests)) is not None:
                match request:
                    case Load(model, config):
                        tasks.create_task(self._load(model, config))
                    case Describe(number) if self._engine is not None:
                        work = self._describe(self._engine, request)
                        self._describing[number] = tasks.create_task(work)
                    case Cancel(number) if self._engine is not None and number in self._describing:
                        self._describing.pop(number).cancel()
                        tasks.create_task(self._acknowledge(self._engine, number))
                    case ReleaseMemory() if self._engine is not None:
                        self._engine.release_memory()
            os._exit(0)

    async def _load(self, model: str, config: EngineConfig) -> None:
        """Also waits for the end of the engine, which is that of the process."""
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._reply, Progress(done, total))

        try:
            engine = self._engine = await VisionLanguageEngine.load(model, config, progress=progress)
        except PeriscopeError as error:
            self._reply(Failed.of(error))
            return
        self._reply(Loaded(str(engine.path), engine.weights_bytes))
        await engine.ended()
        raise EngineClosed("The captioner's worker has ended.")

    async def _describe(self, engine: VisionLanguageEngine, request: Describe) -> None:
        answer: Described | Failed
        try:
            text, num_tokens = await engine.describe(
                request.image,
                request.prompt,
                request.max_tokens,
                on_begun=lambda: self._reply(Begun(request.number)),
            )
            answer = Described(request.number, text, num_tokens)
        except PeriscopeError as error:
            answer = Failed.of(error, request.number)
        del self._describing[request.number]
        self._reply(answer)

    async def _acknowledge(self, engine: VisionLanguageEngine, number: int) -> None:
        """Tell that a cancelled row is gone, once the worker has dropped it: one that hangs never does."""
        while engine.num_rows > len(self._describing):  # noqa: ASYNC110 - see _LOOK_S
            await asyncio.sleep(_LOOK_S)
        self._reply(Dropped(number))

    def _reply(self, reply: Reply) -> None:
        """May wait for the server to read; nothing else would be due meanwhile."""
        self._replies.write(frame_of(reply))
        self._replies.flush()
