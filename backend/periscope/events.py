"""What happens in the server, as typed events, and their bounded fan-out. Event loop only."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self, TypeAlias

from periscope.core import ConfigChanges, RequestTrace

#: Events a subscriber may be behind before it is cut off.
DEFAULT_CAPACITY = 256


@dataclass(frozen=True, slots=True)
class ModelStateChanged:
    """A model went from one state to another; `reason` tells why it failed, for a person."""

    model: str
    old: str
    new: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ModelLoadProgress:
    """Bytes of weights read so far."""

    model: str
    done_bytes: int
    total_bytes: int


@dataclass(frozen=True, slots=True)
class ModelGivenUp:
    """A model's worker has died again and again: a new process may help, this one will not."""

    model: str


@dataclass(frozen=True, slots=True)
class ServerChanged:
    """Something of the server itself changed, such as its problems."""


@dataclass(frozen=True, slots=True)
class ConfigReloaded:
    """models.yaml was read again, and holds from now on."""

    changes: ConfigChanges


@dataclass(frozen=True, slots=True)
class ConfigRejected:
    """models.yaml was read again and cannot be used; the running configuration stays."""

    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ModelRemoved:
    """A model that models.yaml has no more was unloaded, and is not listed any longer."""

    model: str


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """A model's queue, leases or pin changed."""

    model: str


@dataclass(frozen=True, slots=True)
class DownloadChanged:
    """A download is in another state, or has got on."""

    id: str


@dataclass(frozen=True, slots=True)
class RequestChanged:
    """A request has come, or waits for something else now, or generates."""

    id: str


@dataclass(frozen=True, slots=True)
class RequestEnded:
    """A request is over. `outcome`: `finished`, `cancelled` or `failed`; `trace`: what is known of it."""

    id: str
    outcome: str
    trace: RequestTrace = field(default=RequestTrace(), compare=False)


@dataclass(frozen=True, slots=True)
class ImagesDescribed:
    """A captioner or a reader has worked on new images; those that the cache knew are not told.

    Attributes:
        name: of the captioner or reader.
        is_reader: it read their text, and described nothing.
        elapsed_ms: one for each image that it described or read.
        num_failed: the images that it did not.
        num_tokens: generated for all of them.
    """

    name: str
    is_reader: bool
    elapsed_ms: tuple[int, ...]
    num_failed: int
    num_tokens: int


Event: TypeAlias = (
    ModelStateChanged
    | ModelLoadProgress
    | ModelGivenUp
    | ModelChanged
    | ModelRemoved
    | RequestChanged
    | RequestEnded
    | ImagesDescribed
    | ServerChanged
    | DownloadChanged
    | ConfigReloaded
    | ConfigRejected
)


class Subscription:
    """Owned by its reader: an async iterator over events. Ends when the reader fell too far behind, or at close.

    Args:
        kinds: the classes of the events that it has; none = all of them.
    """

    def __init__(self, capacity: int, kinds: tuple[type[Event], ...] = ()) -> None:
        self._capacity = capacity
        self._kinds = kinds
        self._queue: deque[Event] = deque()
        self._is_ended = False
        self._has_news = asyncio.Event()

    def offer(self, event: Event) -> None:
        """Queue an event for the reader, or cut off a reader that is too far behind; never blocks."""
        if self._kinds and type(event) not in self._kinds:
            return
        if len(self._queue) == self._capacity:
            self.end()
            return
        self._queue.append(event)
        self._has_news.set()

    def end(self) -> None:
        """No further events; what is queued can still be read."""
        self._is_ended = True
        self._has_news.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        while not self._queue:
            if self._is_ended:
                raise StopAsyncIteration
            self._has_news.clear()
            await self._has_news.wait()
        return self._queue.popleft()


class EventBus:
    """Owns the lists of subscribers and listeners."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription] = set()
        self._listeners: list[Callable[[Event], None]] = []

    def add_listener(self, listener: Callable[[Event], None]) -> None:
        """Call `listener` with every event from now on, in the turn of the loop that publishes it.

        It hears all of them, however many there are, so it must be quick, and must not raise.
        """
        self._listeners.append(listener)

    def publish(self, event: Event) -> None:
        """Hand an event to every listener and subscriber; never blocks."""
        for listener in self._listeners:
            listener(event)
        for subscription in self._subscriptions:
            subscription.offer(event)

    @contextmanager
    def subscribed(self, *kinds: type[Event], capacity: int = DEFAULT_CAPACITY) -> Iterator[Subscription]:
        """Events from now on, until the block is left.

        Args:
            kinds: the classes of those that the reader wants; none = all. It is not woken for the others.
        """
        subscription = Subscription(capacity, kinds)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
            subscription.end()

    def close(self) -> None:
        """End every subscription; what is queued can still be read."""
        for subscription in self._subscriptions:
            subscription.end()
