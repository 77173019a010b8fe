"""ControlService: the server's status and the commands of its operator, without HTTP. Event loop only."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from periscope.core import ConfigChanges, DownloadCommand, ModelKind, is_default_name, require_model
from periscope.errors import DownloadNotFound, InvalidRequest, NotThinking
from periscope.events import (
    ConfigRejected,
    ConfigReloaded,
    DownloadChanged,
    Event,
    ImagesDescribed,
    ModelChanged,
    ModelGivenUp,
    ModelLoadProgress,
    ModelRemoved,
    ModelStateChanged,
    RequestChanged,
    RequestEnded,
    ServerChanged,
)
from periscope.serving.generators import AnswersNow
from periscope.status import (
    ConfigDelta,
    ConfigRefusal,
    DownloadDelta,
    DownloadStatus,
    HostStatus,
    MemoryStatus,
    ModelDelta,
    ModelStateDelta,
    ModelStatus,
    RequestDelta,
    RequestGone,
    RequestStatus,
    ServerDelta,
    ServerIdentity,
    ServerStatus,
    StatusEvent,
    ToolServerStatus,
)

if TYPE_CHECKING:
    from periscope.captions.cache import CacheStats, CaptionCache, Flushed
    from periscope.captions.kept import KeptCaption
    from periscope.events import EventBus, Subscription
    from periscope.hub.downloads import Downloads
    from periscope.pool.pool import ModelPool
    from periscope.serving.models import ModelNames
    from periscope.serving.requests import LiveRequests
    from periscope.serving.service import ChatService

#: Those text models of the pool that this server computes itself.
_ANSWERS_NOW: type[AnswersNow] = AnswersNow  # type: ignore[type-abstract]  # nobody makes one of it
#: Watchers are told of a load's progress in steps of this part of the whole.
_PROGRESS_PART = 0.01


class ControlService:
    """Owns the status streams that are open.

    Args:
        read_memory: gives (active, cached, peak) bytes of this process.
        reload: reads models.yaml again and has its models. Raises ConfigError when it cannot be used.
        sources: what is fetched for a model, by the name that a client gives it, and whether that is to be the model
            alone: hub ids and revisions. Raises ModelNotFound and InvalidRequest.
        shutdown: asks the process to end.
        read_host: the state of the machine. Takes microseconds.
        read_tool_servers: how the configured MCP servers are. Does not wait.
    """

    def __init__(
        self,
        service: ChatService,
        pool: ModelPool,
        models: ModelNames,
        requests: LiveRequests,
        bus: EventBus,
        *,
        captions: CaptionCache,
        identity: ServerIdentity,
        read_memory: Callable[[], tuple[int, int, int]],
        reload: Callable[[], Awaitable[ConfigChanges]],
        shutdown: Callable[[], None] = lambda: None,
        downloads: Downloads,
        sources: Callable[[str, bool], list[tuple[str, str | None]]],
        read_host: Callable[[], HostStatus] = HostStatus,
        read_tool_servers: Callable[[], tuple[ToolServerStatus, ...]] = tuple,
    ) -> None:
        self._service = service
        self._pool = pool
        self._models = models
        self._requests = requests
        self._captions = captions
        self._bus = bus
        self._identity = identity
        self._read_memory = read_memory
        self._reload = reload
        self._shutdown = shutdown
        self._downloads = downloads
        self._sources = sources
        self._read_host = read_host
        self._read_tool_servers = read_tool_servers
        self._started_at = time.monotonic()
        self._subscriptions: set[Subscription] = set()
        self._is_stopping = False

    # --- status ---------------------------------------------------------------------------------------------------

    def status(self) -> ServerStatus:
        """The whole server at this moment; does not block."""
        models = tuple(self._as_default(status) for status in self._service.statuses())
        active, cached, peak = self._read_memory()
        health = self._service.health()
        return ServerStatus(
            state=health.status,
            identity=self._identity,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started_at,
            problems=health.problems,
            memory=MemoryStatus(
                budget_bytes=self._pool.limits.budget_bytes,
                held_bytes=sum(model.held_bytes for model in models),
                active_bytes=active,
                cache_bytes=cached,
                peak_bytes=peak,
            ),
            host=self._read_host(),
            models=models,
            requests=self._requests.all(),
            downloads=self._downloads.all(),
            num_finished=self._requests.num_finished,
            tokens_per_s=self._requests.tokens_per_s,
            tool_servers=self._read_tool_servers(),
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """The requests that wait or run, the oldest first."""
        return self._requests.all()

    async def captions(self, limit: int, prefix: str) -> tuple[CacheStats, list[KeptCaption]]:
        """The state of the caption cache, and the captions used last; `prefix` as for `KeptCaptions.recent`."""
        await self._captions.loaded()
        return self._captions.stats, self._captions.recent(limit, prefix)

    def downloads(self) -> tuple[DownloadStatus, ...]:
        """The downloads of models, the oldest first."""
        return self._downloads.all()

    def download(self, download_id: str) -> DownloadStatus:
        """One of them; raises DownloadNotFound."""
        return self._downloads.status(download_id)

    async def events(self) -> AsyncGenerator[StatusEvent, None]:
        """Yield the snapshot, then what changes, until the server stops or the reader falls too far behind."""
        if self._is_stopping:
            return
        with self._subscribed() as events:
            yield self.status()
            told_parts: dict[str, float] = {}
            async for event in events:
                for delta in self._deltas(event, told_parts):
                    yield delta

    @contextmanager
    def _subscribed(self) -> Iterator[Subscription]:
        with self._bus.subscribed() as events:
            self._subscriptions.add(events)
            try:
                yield events
            finally:
                self._subscriptions.discard(events)

    def stop(self) -> None:
        """End the status streams, because a server that stops waits for its connections. Idempotent."""
        self._is_stopping = True
        for events in self._subscriptions:
            events.end()

    def _deltas(self, event: Event, told_parts: dict[str, float]) -> Iterator[StatusEvent]:
        match event:
            case ConfigReloaded(changes):
                yield ConfigDelta(changes)
                yield self.status()
            case ConfigRejected(problems):
                yield ConfigRefusal(problems)
            case ModelRemoved():
                yield self.status()
            case ServerChanged():
                yield ServerDelta(self.status())
            case ModelStateChanged() | ModelLoadProgress() | ModelChanged():
                yield from self._model_deltas(event, told_parts)
            case RequestChanged() | RequestEnded() | DownloadChanged():
                yield from self._work_deltas(event)
            case ModelGivenUp() | ImagesDescribed():
                pass

    def _work_deltas(self, event: RequestChanged | RequestEnded | DownloadChanged) -> Iterator[StatusEvent]:
        """The changes of requests and downloads. One that has ended since has an event of its own for that."""
        match event:
            case RequestEnded(request_id, outcome):
                yield RequestGone(request_id, outcome)
            case RequestChanged(request_id):
                if (request := self._requests.status(request_id)) is not None:
                    yield RequestDelta(request)
            case DownloadChanged(download_id):
                with suppress(DownloadNotFound):
                    yield DownloadDelta(self._downloads.status(download_id))

    def _model_deltas(
        self, event: ModelStateChanged | ModelLoadProgress | ModelChanged, told_parts: dict[str, float]
    ) -> Iterator[StatusEvent]:
        try:
            model = self._model(event.model)
        except KeyError:  # it has been removed since, and a new snapshot is on its way
            return
        match event:
            case ModelStateChanged(name, old, new, reason):
                told_parts.pop(name, None)
                yield ModelStateDelta(old, new, reason, model)
            case ModelLoadProgress(name, done, total):
                if _is_news(told_parts, name, done, total):
                    yield ModelDelta(model)
            case ModelChanged():
                yield ModelDelta(model)

    def _model(self, name: str) -> ModelStatus:
        return self._as_default(self._service.status_of(name))

    def _as_default(self, status: ModelStatus) -> ModelStatus:
        return replace(status, is_default=status.name == self._models.default.name)

    # --- commands --------------------------------------------------------------------------------------------------

    def cancel(self, request_id: str) -> None:
        """Cancel a request in whatever step it is. Raises RequestNotFound if it has ended."""
        self._requests.cancel(request_id)

    def answer_now(self, request_id: str) -> None:
        """End the thinking of a running request, so that its answer follows.

        Raises:
            RequestNotFound: there is no such request, or it has ended.
            NotThinking: it does not think now, or its model's thinking cannot be ended.
        """
        model = self._requests.find(request_id).model
        generator = self._pool.loaded(model, _ANSWERS_NOW)
        if generator is None:
            raise NotThinking(
                f"Model {model} is not in the memory of this server: the request still waits for it, or another server "
                "answers, whose thinking cannot be ended from here.",
                param="id",
            )
        generator.answer_now(request_id)

    async def reload(self) -> ConfigChanges:
        """Serve the models of models.yaml as it is now, without a restart. Models that are as before stay loaded.

        Raises:
            ConfigError: it cannot be used, and the running configuration stays.
        """
        return await self._reload()

    def shutdown(self) -> None:
        """Ask the process to end in order, as SIGTERM does. Idempotent."""
        self._shutdown()

    async def flush_captions(self) -> Flushed:
        """Drop all captions, in memory and in the file."""
        return await self._captions.flush_to_disk()

    def start_download(self, model: str, *, revision: str | None, alone: bool) -> tuple[DownloadStatus, ...]:
        """Fetch a model and, unless `alone`, what works for it. What is being fetched already is joined.

        Raises:
            ModelNotFound: it is neither configured nor a hub id.
            InvalidRequest: there is nothing to fetch for it.
            ServerBusy: too many downloads are unfinished.
        """
        (hub_id, pinned), *others = self._sources(model, alone)
        wanted = [(hub_id, revision or pinned), *others]
        return tuple(self._downloads.start(*each) for each in wanted)

    def steer_download(self, download_id: str, command: DownloadCommand) -> DownloadStatus:
        """Pause, resume or cancel a download; raises DownloadNotFound and DownloadConflict."""
        match command:
            case DownloadCommand.PAUSE:
                return self._downloads.pause(download_id)
            case DownloadCommand.RESUME:
                return self._downloads.resume(download_id)
            case DownloadCommand.CANCEL:
                return self._downloads.cancel(download_id)

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        """Load a model; without `wait`, only start to."""
        name = self._name_of(model)
        if wait:
            await self._pool.load(name)
        else:
            self._pool.start_load(name)
        return self._model(name)

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        """Unload a model once its requests are done; without `wait`, only start to."""
        name = self._name_of(model)
        self._pool.start_unload(name)
        if wait:
            await self._pool.unloaded(name)
        return self._model(name)

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        """Pin a model in memory, or unpin it."""
        name = self._name_of(model)
        self._pool.pin(name, is_pinned=pinned)
        return self._model(name)

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        """Make a text model the default, and load it."""
        name = self._name_of(model)
        if (kind := self._pool.status(name).kind) is not ModelKind.TEXT:
            work = "captions images" if kind is ModelKind.CAPTIONER else "embeds texts"
            raise InvalidRequest(f"Model {name} only {work}, so it cannot answer requests.", param="model")
        status = await self.load(name, wait=wait)
        self._models.select(self._models.resolve(model))
        self._bus.publish(ModelChanged(name))
        return status if wait else self._model(name)

    def _name_of(self, asked: str) -> str:
        """The configured name of the model or captioner that a command names.

        Raises:
            ModelNotFound: no model has this name.
            InvalidRequest: it is on another server.
        """
        name = self._models.default.name if is_default_name(asked) else asked
        found = require_model(self._service.statuses(), name).name
        if all(status.name != found for status in self._pool.statuses()):
            raise InvalidRequest(
                f"Model {found} is on another server (`remote` in models.yaml), so it is neither loaded nor unloaded "
                "here.",
                param="model",
            )
        return found


def _is_news(told_parts: dict[str, float], model: str, done: int, total: int) -> bool:
    part = done / total if total else 0.0
    if 0 <= part - told_parts.get(model, -1.0) < _PROGRESS_PART:
        return False
    told_parts[model] = part
    return True
