"""CaptionCache makes each caption once, and gives it out unchanged after that. Event loop only, so it needs no locks.

It does not only save time: because of it the prompt of a conversation is byte-identical from turn to turn.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeAlias

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Tell, Waiting
from periscope.errors import CaptionFailed, ServerBusy

#: Makes one outcome for each key, in their order. Calls `tell` with what it waits for.
MakeCaptions: TypeAlias = Callable[[tuple[str, ...], Tell], Coroutine[Any, Any, Sequence[CaptionOutcome]]]

#: Rough memory of an entry beside its text: key, objects and links.
_ENTRY_OVERHEAD_BYTES: Final = 400


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counted since start, per distinct key of a request; a flush resets none of it.

    Attributes:
        num_hits: answered without asking the captioner again, also by waiting for another request's caption.
        num_misses: handed to the captioner.
        num_entries, num_bytes: held now.
    """

    num_hits: int
    num_misses: int
    num_entries: int
    num_bytes: int


@dataclass(frozen=True, slots=True)
class Answer:
    """The caption of a key, or why there is none.

    Attributes:
        is_made: this call had it made. False if it came from the cache or from another request.
    """

    result: Caption | CaptionFailed
    is_made: bool


@dataclass(slots=True, eq=False)
class _Flight:
    """The keys one request has captioned together, and the requests that wait for any of them.

    Attributes:
        waiters: one for each waiting request, called with what the flight waits for; a new one with the newest.
    """

    keys: tuple[str, ...]
    task: asyncio.Task[Sequence[CaptionOutcome]] = field(init=False)
    waiters: list[Tell] = field(default_factory=list)
    _told: Waiting | None = None

    def tell(self, waiting: Waiting) -> None:
        self._told = waiting
        for waiter in tuple(self.waiters):
            waiter(waiting)

    def join(self, waiter: Tell) -> None:
        self.waiters.append(waiter)
        if self._told is not None:
            waiter(self._told)

    def outcome_of(self, key: str) -> CaptionOutcome:
        """The outcome of one key, after the end of the task.

        If the task was cancelled although somebody waits, the captioner gave up by itself.
        """
        if self.task.cancelled():
            return CaptionFailed("the captioner stopped")
        return self.task.result()[self.keys.index(key)]


class CaptionCache:
    """Owns the captions, bounded by entries and bytes, and the calls that make captions now.

    The least recently used captions are dropped first. The missing keys of a request are made by one call, a flight, in
    a task of its own. Other requests that miss one of these keys join the flight. It goes on without the request that
    started it as long as anybody waits, and is cancelled when nobody does.

    Failures are handed to all who wait, and are not kept. `ServerBusy` is raised to all who wait if the call raised it,
    because each would have waited in the same queue. If it is the outcome of single keys, it is raised to those who
    wait for them; captions that were made beside it are kept, so that the next try has less to do.
    """

    def __init__(self, *, max_entries: int = 4096, max_bytes: int = 16 * 1024 * 1024) -> None:
        self._max_entries = max_entries
        self._max_bytes = max_bytes
        self._entries: OrderedDict[str, Caption] = OrderedDict()
        self._num_bytes = 0
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._num_hits = 0
        self._num_misses = 0

    def __repr__(self) -> str:
        return f"<CaptionCache entries={len(self._entries)} bytes={self._num_bytes} making={len(self._flights)}>"

    @property
    def stats(self) -> CacheStats:
        """The counters at this moment."""
        return CacheStats(self._num_hits, self._num_misses, len(self._entries), self._num_bytes)

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The distinct keys that `get_or_caption` would have made if it were called now, without an await between."""
        return tuple(key for key in dict.fromkeys(keys) if key not in self._entries and key not in self._flights)

    async def get_or_caption(
        self, keys: Iterable[str], make: MakeCaptions, *, tell: Tell = lambda _: None
    ) -> dict[str, Answer]:
        """One answer for each distinct key, from the cache, from a flight of another request, or made now.

        Args:
            make: called at most once, with the missing keys. May outlive this call; cancelled when nobody waits.
            tell: called with what the flights wait for, also those that another request started.

        Raises:
            ServerBusy: the captioner did not begin on one of the keys in time.
            Exception: what the `make` of a flight raised.
        """
        wanted = tuple(dict.fromkeys(keys))
        missing = self.missing(wanted)
        held = {key: self._take(key) for key in wanted if key in self._entries}
        if missing:
            self._start(missing, make)
        joined = {key: self._flights[key] for key in wanted if key not in held}
        self._num_misses += len(missing)
        self._num_hits += len(wanted) - len(missing)
        if joined:
            await self._wait_for(set(joined.values()), tell)
        made = {key: _or_raise_busy(flight.outcome_of(key)) for key, flight in joined.items()}
        return {key: Answer(held[key] if key in held else made[key], is_made=key in missing) for key in wanted}

    def flush(self) -> None:
        """Drop all captions. Those that are being made still go to the requests that wait, but are not kept."""
        self._entries.clear()
        self._num_bytes = 0
        self._flights.clear()

    def _take(self, key: str) -> Caption:
        self._entries.move_to_end(key)
        return self._entries[key]

    def _start(self, keys: tuple[str, ...], make: MakeCaptions) -> None:
        flight = _Flight(keys)
        task = flight.task = asyncio.create_task(_checked(make, keys, flight.tell), name="make captions")
        self._tasks.add(task)
        self._flights.update(dict.fromkeys(keys, flight))
        task.add_done_callback(partial(self._finish, flight))

    async def _wait_for(self, flights: set[_Flight], tell: Tell) -> None:
        for flight in flights:
            flight.join(tell)
        try:
            await asyncio.wait([flight.task for flight in flights])
        finally:
            for flight in flights:
                flight.waiters.remove(tell)
            abandoned = [flight for flight in flights if not flight.waiters and not flight.task.done()]
            for flight in abandoned:
                self._detach(flight)
                flight.task.cancel()
            if abandoned:
                await asyncio.wait([flight.task for flight in abandoned])

    def _finish(self, flight: _Flight, task: asyncio.Task[Sequence[CaptionOutcome]]) -> None:
        """Keep what the flight has made. As a callback of its task this runs before the waiting requests go on."""
        self._tasks.discard(task)
        current = self._detach(flight)
        if task.cancelled() or task.exception() is not None:
            return
        for key in current:
            outcome = flight.outcome_of(key)
            if isinstance(outcome, Caption):
                self._keep(key, outcome)

    def _detach(self, flight: _Flight) -> list[str]:
        """Let nobody join the flight any more. Returns its keys, without those that a flush has taken from it."""
        current = [key for key in flight.keys if self._flights.get(key) is flight]
        for key in current:
            del self._flights[key]
        return current

    def _keep(self, key: str, caption: Caption) -> None:
        if _num_bytes(caption) > self._max_bytes:
            return
        self._entries[key] = caption
        self._num_bytes += _num_bytes(caption)
        while len(self._entries) > self._max_entries or self._num_bytes > self._max_bytes:
            _, evicted = self._entries.popitem(last=False)
            self._num_bytes -= _num_bytes(evicted)


async def _checked(make: MakeCaptions, keys: tuple[str, ...], tell: Tell) -> Sequence[CaptionOutcome]:
    outcomes = await make(keys, tell)
    if len(outcomes) != len(keys):
        raise ValueError(f"{len(keys)} captions were wanted, {len(outcomes)} came")
    return outcomes


def _or_raise_busy(outcome: CaptionOutcome) -> Caption | CaptionFailed:
    if isinstance(outcome, ServerBusy):
        raise outcome
    return outcome


def _num_bytes(caption: Caption) -> int:
    return len(caption.text.encode(errors="surrogatepass")) + _ENTRY_OVERHEAD_BYTES
