"""A control service that remembers its commands, and the status that it tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from periscope.captions.cache import CacheStats, Flushed
from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaption
from periscope.captions.store import StoreState
from periscope.core import (
    ConfigChanges,
    DownloadCommand,
    ModelKind,
    ModelState,
)
from periscope.status import (
    DownloadStatus,
    HostStatus,
    MemoryStatus,
    ModelStatus,
    RequestStatus,
    ServerIdentity,
    ServerStatus,
    StatusEvent,
)
from tests.api.gates import Gate, raise_it

KEPT = KeptCaption("caption/ab12/cd34", Caption("A red circle.", 5, 70), created_at=1.5, used_at=2.25)
ROW = ModelStatus(
    name="org/text",
    kind=ModelKind.TEXT,
    state=ModelState.READY,
    aliases=("small",),
    is_default=True,
    max_running=16,
)
WAITER = RequestStatus(id="chatcmpl-1", model="org/text", status="queued", age_s=1.5, position=2)
DOWNLOAD = DownloadStatus(
    id="dl-1",
    model="org/Text-4bit",
    revision=None,
    state="downloading",
    total_bytes=1000,
    completed_bytes=400,
    bytes_per_s=60.12345,
    eta_s=10.0,
    warning=None,
    error=None,
    created_at=1764383836.25,
)
SNAPSHOT = ServerStatus(
    state="ready",
    identity=ServerIdentity("1.2.3", "9f3c", "launchd"),
    pid=7,
    uptime_s=60.0,
    problems=(),
    memory=MemoryStatus(budget_bytes=100, held_bytes=40, active_bytes=30, cache_bytes=5, peak_bytes=50),
    host=HostStatus("normal", "nominal", 60, is_kept_awake=True),
    models=(ROW,),
    requests=(WAITER,),
    downloads=(DOWNLOAD,),
    num_finished=3,
    tokens_per_s=12.5,
)


class FakeControl:
    """Remembers commands and answers each with its script's last step; plays the script as events."""

    def __init__(self, *script: StatusEvent | Gate | Exception) -> None:
        self.script = script or (SNAPSHOT,)
        self.commands: list[tuple[Any, ...]] = []
        self.num_open = 0
        self.num_told = 0
        self.saw: list[type[BaseException]] = []

    def status(self) -> ServerStatus:
        return SNAPSHOT

    async def events(self) -> AsyncGenerator[StatusEvent, None]:
        self.num_open += 1
        try:
            for step in self.script:
                match step:
                    case Gate():
                        await step.passed()
                    case Exception():
                        raise_it(step)
                    case _:
                        self.num_told += 1
                        yield step
        except BaseException as error:
            self.saw.append(type(error))
            raise
        finally:
            self.num_open -= 1

    def requests(self) -> tuple[RequestStatus, ...]:
        return SNAPSHOT.requests

    async def captions(self, limit: int, prefix: str) -> tuple[CacheStats, list[KeptCaption]]:
        self._take("captions", limit, prefix)
        return CacheStats(2, 1, 1, 600, 1024, Path("/c/captions.sqlite3"), StoreState.OPEN), [KEPT]

    async def flush_captions(self) -> Flushed:
        self._take("flush_captions")
        return Flushed(3, is_written=True)

    def downloads(self) -> tuple[DownloadStatus, ...]:
        return SNAPSHOT.downloads

    def download(self, download_id: str) -> DownloadStatus:
        self._take("download", download_id)
        return DOWNLOAD

    def start_download(self, model: str, *, revision: str | None, alone: bool) -> tuple[DownloadStatus, ...]:
        self._take("start_download", model, revision, alone)
        return (DOWNLOAD,)

    def steer_download(self, download_id: str, command: DownloadCommand) -> DownloadStatus:
        self._take("steer_download", download_id, command)
        return DOWNLOAD

    async def reload(self) -> ConfigChanges:
        self._take("reload")
        return ConfigChanges(added=("new",), needs_restart=("server.port",))

    def shutdown(self) -> None:
        self._take("shutdown")

    def answer_now(self, request_id: str) -> None:
        self._take("answer_now", request_id)

    def cancel(self, request_id: str) -> None:
        self._take("cancel", request_id)

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("load", model, wait)

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("unload", model, wait)

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        self._take("pin", model, pinned)
        return ROW

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("select", model, wait)

    def _take(self, *command: Any) -> None:
        self.commands.append(command)
        if isinstance(self.script[-1], Exception):
            raise self.script[-1]

    async def _do(self, *command: Any) -> ModelStatus:
        self._take(*command)
        if isinstance(gate := self.script[-1], Gate):
            try:
                await gate.passed()
            except asyncio.CancelledError:
                self.saw.append(asyncio.CancelledError)
                raise
        return ROW
