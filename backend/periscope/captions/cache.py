"""CaptionCache makes each caption once, and gives it out unchanged after that. Event loop only, so it needs no locks.

It does not only save time: because of it the prompt of a conversation is byte-identical from turn to turn, also across
a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeAlias

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.captions.kept import DEFAULT_MAX_BYTES, KeptCaption, KeptCaptions
from periscope.captions.store import CaptionStore, StoreState
from periscope.core import Tell, Waiting
from periscope.errors import CaptionFailed, ServerBusy

#: Makes one outcome for each key, in their order. Calls `tell` with what it waits for.
MakeCaptions: TypeAlias = Callable[[tuple[str, ...], Tell], Coroutine[Any, Any, Sequence[CaptionOutcome]]]

#: Requests with pictures wait this long for what an earlier process kept: a full file takes one to a few seconds.
_LOAD_TIMEOUT_S: Final = 10.0
#: Of what was loaded, in one turn of the event loop: a few milliseconds.
_MERGED_AT_ONCE: Final = 1000
#: A disk that hangs holds up neither a command nor the end of the process for longer.
_WRITE_TIMEOUT_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Counted since start, per distinct key of a request; a flush resets none of it.

    Attributes:
        num_hits: answered without asking captioner or reader again, also by waiting for another request's caption.
        num_misses: handed to the captioner or the reader.
        num_entries, num_bytes: held now, at most `max_bytes`.
        path: the file that keeps them; None = they are kept in memory only.
        state: of the file; None without one.
        num_unwritten: changes that are on their way to the file.
    """

    num_hits: int
    num_misses: int
    num_entries: int
    num_bytes: int
    max_bytes: int
    path: Path | None = None
    state: StoreState | None = None
    num_unwritten: int = 0


@dataclass(frozen=True, slots=True)
class Flushed:
    """How many captions a flush has dropped; `is_written`: the file, if there is one, holds none of them any more."""

    num_entries: int
    is_written: bool


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
    """Owns the calls that make captions now; what has been made is in `kept`, and in the store if there is one.

    The missing keys of a request are made by one call, a flight, in a task of its own. Other requests that miss one of
    these keys join the flight. It goes on without the request that started it as long as anybody waits, and is
    cancelled when nobody does.

    Failures are handed to all who wait, and are not kept. `ServerBusy` is raised to all who wait if the call raised it,
    because each would have waited in the same queue. If it is the outcome of single keys, it is raised to those who
    wait for them; captions that were made beside it are kept, so that the next try has less to do.
    """

    def __init__(
        self,
        *,
        max_bytes: int = DEFAULT_MAX_BYTES,
        store: CaptionStore | None = None,
        load_timeout_s: float = _LOAD_TIMEOUT_S,
    ) -> None:
        self._store = store
        self._load_timeout_s = load_timeout_s
        self._load_deadline = 0.0
        self._kept = KeptCaptions(max_bytes=max_bytes, journal=store)
        self._loading: asyncio.Task[None] | None = None
        self._num_flushes = 0
        self._flights: dict[str, _Flight] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._num_hits = 0
        self._num_misses = 0

    def __repr__(self) -> str:
        return f"<CaptionCache entries={len(self._kept)} bytes={self._kept.num_bytes} making={len(self._flights)}>"

    @property
    def kept(self) -> KeptCaptions:
        """What has been made. Other texts that must outlive a restart may be kept there, in namespaces of their own."""
        return self._kept

    @property
    def stats(self) -> CacheStats:
        """The counters at this moment."""
        stats = CacheStats(
            self._num_hits, self._num_misses, len(self._kept), self._kept.num_bytes, self._kept.max_bytes
        )
        store = self._store
        if store is None:
            return stats
        return replace(stats, path=store.path, state=store.state, num_unwritten=store.num_unwritten)

    def start_loading(self) -> None:
        """Begin to read what an earlier process kept. Idempotent; returns at once."""
        if self._loading is None and self._store is not None:
            self._load_deadline = asyncio.get_running_loop().time() + self._load_timeout_s
            self._loading = asyncio.create_task(self._load(self._store), name="load captions")

    async def loaded(self) -> None:
        """Wait until the captions of an earlier process are here; afterwards this returns without an await.

        Without this wait a picture of an earlier turn would be described again, maybe in other words. It ends at one
        deadline for all requests: a disk that hangs makes captions new, not every request late. What comes after the
        deadline is still of use.
        """
        self.start_loading()
        if self._loading is not None and not self._loading.done():
            remaining_s = self._load_deadline - asyncio.get_running_loop().time()
            if remaining_s > 0:
                await asyncio.wait({self._loading}, timeout=remaining_s)

    async def close(self) -> None:
        """Bring to disk what is not there yet, and let the file go. Idempotent; captions stay usable."""
        if self._store is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._store.close(), _WRITE_TIMEOUT_S)
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})

    def missing(self, keys: Iterable[str]) -> tuple[str, ...]:
        """The distinct keys that `get_or_caption` would have made if it were called now, without an await between.

        Call `loaded` before.
        """
        return tuple(key for key in dict.fromkeys(keys) if key not in self._kept and key not in self._flights)

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
        held = {key: caption for key in wanted if (caption := self._kept.take(key)) is not None}
        if missing:
            self._start(missing, make)
        joined = {key: self._flights[key] for key in wanted if key not in held}
        self._num_misses += len(missing)
        self._num_hits += len(wanted) - len(missing)
        if joined:
            await self._wait_for(set(joined.values()), tell)
        made = {key: _or_raise_busy(flight.outcome_of(key)) for key, flight in joined.items()}
        return {key: Answer(held[key] if key in held else made[key], is_made=key in missing) for key in wanted}

    def flush(self) -> int:
        """Drop all captions; returns how many. Those that are being made still go to who waits, but are not kept."""
        self._num_flushes += 1
        self._flights.clear()
        return self._kept.clear()

    async def flush_to_disk(self) -> Flushed:
        """Drop all captions, also those in the file, and wait for that; a disk that hangs is waited for 5 s."""
        await self.loaded()
        num_entries = self.flush()
        is_written = True
        if self._store is not None:
            try:
                is_written = await asyncio.wait_for(self._store.written(), _WRITE_TIMEOUT_S)
            except TimeoutError:
                is_written = False
        return Flushed(num_entries, is_written)

    def recent(self, limit: int, prefix: str = "") -> list[KeptCaption]:
        """The most recently used captions first; `prefix` as for `KeptCaptions.recent`."""
        return self._kept.recent(limit, prefix)

    async def _load(self, store: CaptionStore) -> None:
        num_flushes = self._num_flushes
        loaded = await store.load(self._kept.max_bytes)
        for at in range(0, len(loaded), _MERGED_AT_ONCE):
            if num_flushes != self._num_flushes:  # they were to be forgotten, and the file is being emptied
                return
            self._kept.merge_older(loaded[at : at + _MERGED_AT_ONCE])
            await asyncio.sleep(0)

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
                self._kept.keep(key, outcome)

    def _detach(self, flight: _Flight) -> list[str]:
        """Let nobody join the flight any more. Returns its keys, without those that a flush has taken from it."""
        current = [key for key in flight.keys if self._flights.get(key) is flight]
        for key in current:
            del self._flights[key]
        return current


async def _checked(make: MakeCaptions, keys: tuple[str, ...], tell: Tell) -> Sequence[CaptionOutcome]:
    outcomes = await make(keys, tell)
    if len(outcomes) != len(keys):
        raise ValueError(f"{len(keys)} captions were wanted, {len(outcomes)} came")
    return outcomes


def _or_raise_busy(outcome: CaptionOutcome) -> Caption | CaptionFailed:
    if isinstance(outcome, ServerBusy):
        raise outcome
    return outcome
