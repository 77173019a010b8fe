"""CaptionCache: each caption is made once and comes out the same every time. Event loop only, no locks needed.

The cache is what keeps a conversation's prompt byte-identical from turn to turn, not only what saves time.
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

#: An outcome for each key it is given, in their order. It tells what it waits for.
MakeCaptions: TypeAlias = Callable[[tuple[str, ...], Tell], Coroutine[Any, Any, Sequence[CaptionOutcome]]]

#: What an entry costs beside its text: key, objects and links, roughly.
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
    """A key's caption or failure. `is_made`: this very call had it made; else it came from the cache or a neighbour."""

    result: Caption | CaptionFailed
    is_made: bool


@dataclass(slots=True, eq=False)
class _Flight:
    """The keys one request has captioned together, and the requests that wait for any of them.

    Attributes:
        waiters: one for each request; each hears what the flight waits for, from its last word on.
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
        """The task has ended. If it was cancelled while someone still waits, the captioner gave up by itself."""
        if self.task.cancelled():
            return CaptionFailed("the captioner stopped")
        return self.task.result()[self.keys.index(key)]


class CaptionCache:
    """Owns captions, bounded by entries and bytes (least recently used go first), and the ones being made now.

    A request's missing keys are made by one call, a flight, in a task of its own. Others that miss the same key wait
    for that flight. It outlives the request that began it while anyone waits, and is cancelled when nobody does.
    Failures go to those who wait and are not kept. That the captioner is busy is raised: to all of them if the call
    raised it, for each would have waited in the same queue; to those who wanted the key if its turn alone did not come.
    What else was made is kept then, so that a later try has less to do.
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
        """Counters as of now."""
        return CacheStats(self._num_hits, self._num_misses, len(self._entries), self._num_bytes)

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The distinct keys that `get_or_caption` would have made if it were called now, without an await between."""
        return tuple(key for key in dict.fromkeys(keys) if key not in self._entries and key not in self._flights)

    async def get_or_caption(
        self, keys: Iterable[str], make: MakeCaptions, *, tell: Tell = lambda _: None
    ) -> dict[str, Answer]:
        """An answer for each distinct key.

        Args:
            make: called at most once, with the missing keys. May outlive this call; cancelled when nobody waits.
            tell: hears what the captions that are not there yet wait for, whether made for this call or for another.

        Raises:
            ServerBusy: the turn of an image did not come.
            Exception: what `make` raised, of this call or of the one it joined; what else was made is kept.
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
        """Forget every caption. Those being made still reach who waits for them, and are not kept."""
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
        """Runs before whoever waits goes on."""
        self._tasks.discard(task)
        current = self._detach(flight)
        if task.cancelled() or task.exception() is not None:
            return
        for key in current:
            outcome = flight.outcome_of(key)
            if isinstance(outcome, Caption):
                self._keep(key, outcome)

    def _detach(self, flight: _Flight) -> list[str]:
        """Nobody joins it any more. Returns the keys that were still its own: a flush may have taken them away."""
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
