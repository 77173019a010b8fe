"""ControlService: what is going on, and commands to it, without HTTP. Event loop only."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from periscope.errors import InvalidRequest, ModelNotFound
from periscope.events import (
    Event,
    ModelChanged,
    ModelGivenUp,
    ModelLoadProgress,
    ModelStateChanged,
    RequestChanged,
    RequestEnded,
)
from periscope.status import (
    MemoryStatus,
    ModelDelta,
    ModelStateDelta,
    ModelStatus,
    RequestDelta,
    RequestGone,
    RequestStatus,
    ServerStatus,
    StatusEvent,
)

if TYPE_CHECKING:
    from periscope.events import EventBus, Subscription
    from periscope.pool.pool import ModelPool
    from periscope.serving.models import ModelNames
    from periscope.serving.requests import LiveRequests
    from periscope.serving.service import ChatService

#: Loads tell of progress as often as they like; watchers hear of it at each of these parts of the whole.
_PROGRESS_PART = 0.01


class ControlService:
    """Owns the event streams that are open. `read_memory` gives (active, cached, peak) bytes of this process."""

    def __init__(
        self,
        service: ChatService,
        pool: ModelPool,
        models: ModelNames,
        requests: LiveRequests,
        bus: EventBus,
        *,
        version: str,
        read_memory: Callable[[], tuple[int, int, int]],
    ) -> None:
        self._service = service
        self._pool = pool
        self._models = models
        self._requests = requests
        self._bus = bus
        self._version = version
        self._read_memory = read_memory
        self._started_at = time.monotonic()
        self._subscriptions: set[Subscription] = set()
        self._is_stopping = False

    # --- looking ---------------------------------------------------------------------------------------------------

    def status(self) -> ServerStatus:
        """Everything at this moment; instant."""
        views = self._pool.views()
        active, cached, peak = self._read_memory()
        health = self._service.health()
        return ServerStatus(
            state=health.status,
            version=self._version,
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started_at,
            problems=health.problems,
            memory=MemoryStatus(
                budget_bytes=self._pool.limits.budget_bytes,
                held_bytes=sum(view.held_bytes for view in views),
                active_bytes=active,
                cache_bytes=cached,
                peak_bytes=peak,
            ),
            models=tuple(self._model(view.name) for view in views),
            requests=self._requests.all(),
            num_finished=self._requests.num_finished,
        )

    def requests(self) -> tuple[RequestStatus, ...]:
        """Those that wait or run, the oldest first."""
        return self._requests.all()

    async def events(self) -> AsyncGenerator[StatusEvent, None]:
        """The snapshot, then what changes, until the server stops or the reader is too far behind."""
        if self._is_stopping:
            return
        with self._subscribed() as events:
            yield self.status()
            told_parts: dict[str, float] = {}
            async for event in events:
                delta = self._delta(event, told_parts)
                if delta is not None:
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
        """End the event streams: a server that stops waits for its connections."""
        self._is_stopping = True
        for events in self._subscriptions:
            events.end()

    def _delta(self, event: Event, told_parts: dict[str, float]) -> StatusEvent | None:
        match event:
            case ModelStateChanged(name, old, new, reason):
                told_parts.pop(name, None)
                return ModelStateDelta(old, new, reason, self._model(name))
            case ModelLoadProgress(name, done, total):
                return ModelDelta(self._model(name)) if _is_news(told_parts, name, done, total) else None
            case ModelChanged(name):
                return ModelDelta(self._model(name))
            case RequestChanged(request_id):
                return self._request_delta(request_id)
            case RequestEnded(request_id, outcome):
                return RequestGone(request_id, outcome)
            case ModelGivenUp():
                return None

    def _request_delta(self, request_id: str) -> RequestDelta | None:
        request = self._requests.status(request_id)
        return None if request is None else RequestDelta(request)

    def _model(self, name: str) -> ModelStatus:
        view = self._pool.view(name)
        served = self._models.of_pool(name)
        done, total = view.load_progress or (None, None)
        return ModelStatus(
            name=name,
            kind="captioner" if served is None else "text",
            state=view.state,
            aliases=self._models.captioner_aliases.get(name, ()) if served is None else served.aliases,
            is_default=served is not None and served is self._models.default,
            is_pinned=view.is_pinned,
            num_running=view.num_leases,
            num_waiting=view.num_waiting,
            max_running=view.max_leases,
            held_bytes=view.held_bytes,
            weights_bytes=view.weights_bytes,
            load_done_bytes=done,
            load_total_bytes=total,
            load_eta_s=view.load_eta_s,
            idle_s=view.idle_s,
            ttl_s=view.ttl_s,
            unload_in_s=view.unload_in_s,
            error=view.error.message if view.error else None,
            retry_in_s=view.retry_in_s,
        )

    # --- steering --------------------------------------------------------------------------------------------------

    def cancel(self, request_id: str) -> None:
        """End a request wherever it is."""
        self._requests.cancel(request_id)

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        """Bring a model into memory."""
        name = self._pool_name(model)
        if wait:
            await self._pool.bring_in(name)
        else:
            self._pool.start_bringing_in(name)
        return self._model(name)

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        """Take a model out of memory once its requests are done."""
        name = self._pool_name(model)
        self._pool.start_unloading(name)
        if wait:
            await self._pool.gone(name)
        return self._model(name)

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        """Whether a model may be unloaded."""
        name = self._pool_name(model)
        self._pool.pin(name, is_pinned=pinned)
        return self._model(name)

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        """Make a text model the default, and load it."""
        name = self._pool_name(model)
        served = self._models.of_pool(name)
        if served is None:
            raise InvalidRequest(f"Model {name} only captions images, so it cannot answer requests.", param="model")
        status = await self.load(name, wait=wait)
        self._models.select(served)
        self._bus.publish(ModelChanged(name))
        return status if wait else self._model(name)

    def _pool_name(self, model: str) -> str:
        """The configured name that a name, an alias or "" means; captioners have names too."""
        try:
            return self._models.resolve(model).name
        except ModelNotFound:
            names = [view.name for view in self._pool.views()]
            for name in names:
                if model == name or model in self._models.captioner_aliases.get(name, ()):
                    return name
            known = ", ".join(names)
            raise ModelNotFound(f"There is no model {model[:128]!r} here. Known: {known}.", param="model") from None


def _is_news(told_parts: dict[str, float], model: str, done: int, total: int) -> bool:
    part = done / total if total else 0.0
    if 0 <= part - told_parts.get(model, -1.0) < _PROGRESS_PART:
        return False
    told_parts[model] = part
    return True
