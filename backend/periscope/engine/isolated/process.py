"""The captioner's process: a `VisionLanguageEngine` behind a pair of pipes.

Everything here runs on the process's only event loop; the model has a worker thread, as in the server. The process ends
when the pipe from the server ends, because the server has closed it or has exited or crashed. It ends at once, whatever
the model is doing: nothing needs to be cleaned up, and the system reclaims the memory.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import BinaryIO, NoReturn

from periscope.engine.config import EngineConfig
from periscope.engine.isolated.messages import (
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
    Started,
    frame_of,
    next_message,
)
from periscope.engine.loading.deferred_imports import DeferredImports
from periscope.engine.loading.import_structure import KeptImportStructure
from periscope.engine.vision.vision_language import VisionLanguageEngine
from periscope.errors import EngineClosed, PeriscopeError
from periscope.standard_streams import never_wait_for_readers

logger = logging.getLogger(__name__)


def run(pipe_to_server: int, import_structure: str | None = None) -> NoReturn:
    """Serve until the server closes its end of the pipe. Never returns, and runs no exit handlers.

    Args:
        pipe_to_server: file descriptor for replies; requests are read from standard input.
        import_structure: the server's file of `KeptImportStructure`; None = it has none.
    """
    never_wait_for_readers("stdout", "stderr")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    DeferredImports().install()
    if import_structure is not None:
        KeptImportStructure(Path(import_structure)).install()
    try:
        with os.fdopen(pipe_to_server, "wb") as replies:
            asyncio.run(_CaptionerProcess(replies).serve())
    except BaseException:
        logger.exception("the captioner's process ends by an error")
    finally:
        os._exit(1)


class _CaptionerProcess:
    """Owns the engine and the tasks of running descriptions, by number. Event loop only."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self._engine: VisionLanguageEngine | None = None
        self._describing: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        """Handle requests until the pipe ends, then end the process."""
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
                        tasks.create_task(self._drop(self._engine, number, self._describing.pop(number)))
                    case ReleaseMemory() if self._engine is not None:
                        self._engine.release_memory()
            os._exit(0)

    async def _load(self, model: str, config: EngineConfig) -> None:
        """Load the model, then wait for the end of its engine, which ends the process.

        Raises:
            EngineClosed: the engine has ended.
        """
        loop = asyncio.get_running_loop()

        def progress(done: int, total: int) -> None:
            loop.call_soon_threadsafe(self._reply, Progress(done, total))

        try:
            engine = self._engine = await VisionLanguageEngine.load(model, config, progress=progress)
        except PeriscopeError as error:
            self._reply(Failed.of(error))
            return
        self._reply(Loaded(str(engine.path), engine.memory.weights_bytes))
        await engine.ended()
        raise EngineClosed("The captioner's worker has ended.")

    async def _describe(self, engine: VisionLanguageEngine, request: Describe) -> None:
        answer: Described | Failed
        try:
            text, num_tokens = await engine.describe(
                request.image,
                request.prompt,
                request.max_tokens,
                on_start=lambda: self._reply(Started(request.number)),
            )
            answer = Described(request.number, text, num_tokens)
        except PeriscopeError as error:
            answer = Failed.of(error, request.number)
        del self._describing[request.number]
        self._reply(answer)

    async def _drop(self, engine: VisionLanguageEngine, number: int, describing: asyncio.Task[None]) -> None:
        """Cancel a description. Reply `Dropped` once its row is removed, which a worker that hangs never does."""
        describing.cancel()
        await asyncio.wait({describing})
        await engine.settled()
        self._reply(Dropped(number))

    def _reply(self, reply: Reply) -> None:
        """Write a reply. Blocks the loop until the server reads, which delays nothing but further replies."""
        self._replies.write(frame_of(reply))
        self._replies.flush()
