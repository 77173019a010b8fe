"""One configured model's place in the pool: its state, its engine, its queue. Event loop only.

The slot knows how to do things and when it may not; what is to be done is decided by `plan`, in the pool.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from periscope.errors import ModelUnavailable, PeriscopeError
from periscope.events import ModelChanged, ModelGivenUp, ModelLoadProgress, ModelStateChanged
from periscope.pool.planner import ModelFacts
from periscope.pool.spec import LoadProgress, ModelSpec, Need, PooledEngine
from periscope.pool.state import ModelState, check_transition
from periscope.pool.ticket import Ticket, TicketState

if TYPE_CHECKING:
    from periscope.events import Event
    from periscope.pool.planner import TicketFacts
    from periscope.pool.timers import TimerHandle, Timers

logger = logging.getLogger(__name__)

#: Wait after a failed load before the next try, and after the second death of a worker; doubled with each. After a
#: first death it is tried again at once.
FIRST_BACK_OFF_S = 5.0
MAX_BACK_OFF_S = 300.0
#: Workers of one model that die in a row, none of them having lived for LASTING_S: then it is given up.
MAX_DEATHS = 3
LASTING_S = 600.0
#: How long a request holds its lease, before any has.
TYPICAL_LEASE_S = 5.0
#: Weight of the newest lease in the mean.
_NEWEST_PART = 0.2


class Slot:
    """Owns one model's state machine and its queue. `changed` is called after whatever a plan could rest on."""

    def __init__(
        self,
        spec: ModelSpec,
        timers: Timers,
        *,
        publish: Callable[[Event], None],
        changed: Callable[[], None],
        next_number: Callable[[], int],
        died: Callable[[Slot], None],
    ) -> None:
        self.spec = spec
        self.name = spec.name
        self.state = ModelState.UNLOADED
        self.error: PeriscopeError | None = None
        self.engine: PooledEngine | None = None
        self.num_leases = 0
        self.waiting: list[Ticket] = []
        self.is_pinned = spec.is_pinned
        self.unload_number: int | None = None
        self.restart: TimerHandle | None = None
        self.load_progress: tuple[int, int] | None = None
        self.load_started_at = 0.0
        self.lease_s = TYPICAL_LEASE_S
        self.is_unused = asyncio.Event()
        self.is_unused.set()
        self._timers = timers
        self._publish = publish
        self._changed = changed
        self._next_number = next_number
        self._died = died
        self._promised_bytes = 0
        self._need: Need | None = None
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_unloading = False
        self._ready_number = 0
        self._ready_at = self._used_at = self.retry_at = 0.0
        self._num_failures = self._num_deaths = 0
        self._told_row: tuple[object, ...] = ()

    def __repr__(self) -> str:
        return f"<Slot {self.name} {self.state} leases={self.num_leases} waiting={len(self.waiting)}>"

    def facts(self) -> ModelFacts:
        """What a plan may rest on."""
        return ModelFacts(
            name=self.name,
            state=self.state,
            waiting=tuple(ticket.facts for ticket in self.waiting),
            need_bytes=None if self._need is None else self._need.total_bytes,
            held_bytes=self.held_bytes,
            is_measuring=self.is_measuring,
            is_unloading=self._is_unloading,
            is_pinned=self.is_pinned,
            num_leases=self.num_leases,
            max_leases=self.spec.max_leases,
            ready_number=self._ready_number,
            unload_number=self.unload_number,
            ready_at=self._ready_at,
            used_at=self._used_at,
            ttl_s=self.spec.ttl_s,
            retry_at=self.retry_at,
        )

    @property
    def is_measuring(self) -> bool:
        """Its files are being looked at; only to what is loaded or loading anything is promised."""
        return self._task is not None and self._promised_bytes == 0

    @property
    def held_bytes(self) -> int:
        """What the ledger counts: what was promised, and more while its requests take more."""
        if self.engine is None:
            return self._promised_bytes
        return max(self._promised_bytes, self.engine.weights_bytes + self.engine.working_bytes)

    @property
    def outstanding_bytes(self) -> int:
        """Promised to it, and not to be seen among what this process has taken: not read yet, or taken elsewhere."""
        if self.spec.is_isolated:
            return self._promised_bytes
        done = self.load_progress[0] if self.load_progress is not None else 0
        return max(self._promised_bytes - done, 0) if self.state is ModelState.LOADING else 0

    # --- the queue -------------------------------------------------------------------------------------------------

    @property
    def num_waiting(self) -> int:
        """Requests in the queue, reserved places among them; whoever only wants it loaded does not stand in it."""
        return sum(not ticket.facts.is_load_only for ticket in self.waiting)

    @property
    def num_reserved(self) -> int:
        """Of those in the queue, the places that are only kept."""
        return sum(ticket.facts.is_reserved for ticket in self.waiting)

    def join(self, facts: TicketFacts) -> Ticket:
        """A ticket at the end of the queue."""
        ticket = Ticket(facts, self._timers.now, on_ready=self._changed, on_close=self._leave)
        self.waiting.append(ticket)
        return ticket

    def grant(self, number: int) -> None:
        """A lease for the ticket, or, to one that only wanted it loaded, the news."""
        ticket = self._take(number)
        assert self.engine is not None  # noqa: S101 - a plan grants what is ready
        if not ticket.facts.is_load_only:
            self.num_leases += 1
            self.is_unused.clear()
            self._used_at = self._timers.now()
        ticket.grant(self.engine)

    def refuse(self, number: int, error: PeriscopeError) -> None:
        """The ticket leaves the queue with an error."""
        self._take(number).refuse(error)

    def refuse_all(self, error: PeriscopeError) -> None:
        """Everybody leaves the queue with an error."""
        for ticket in tuple(self.waiting):
            self.refuse(ticket.facts.number, error)

    def _take(self, number: int) -> Ticket:
        index = next(i for i, ticket in enumerate(self.waiting) if ticket.facts.number == number)
        return self.waiting.pop(index)

    def _leave(self, ticket: Ticket) -> None:
        if ticket.state in {TicketState.RESERVED, TicketState.WAITING}:
            self.waiting.remove(ticket)
        elif ticket.state is TicketState.GRANTED and not ticket.facts.is_load_only:
            self.num_leases -= 1
            self._used_at = self._timers.now()
            self.lease_s += _NEWEST_PART * (self._used_at - ticket.granted_at - self.lease_s)
            if self.num_leases == 0:
                self.is_unused.set()
        else:
            return
        self._changed()

    # --- what a plan asks for --------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Start to look at the model's files."""
        self._start(self._measure(), "measure")

    def load(self) -> None:
        """Reserve its bytes and start to load."""
        assert self._need is not None  # noqa: S101 - a plan loads what was measured
        self._promised_bytes = self._need.total_bytes
        self.load_progress, self.load_started_at = None, self._timers.now()
        self._go(ModelState.LOADING)
        self._start(self._load(self._need), "load")

    def give_up_load(self) -> None:
        """Stop to load it: it is not to be there."""
        assert self._task is not None  # noqa: S101 - a plan gives up what is being loaded
        self._is_unloading = True
        _cancel_begun(self._task)

    def drain(self) -> None:
        """No new leases from now on."""
        self._go(ModelState.DRAINING)

    def keep(self) -> None:
        """It is not to be unloaded after all."""
        self._go(ModelState.READY)

    def unload(self) -> None:
        """Start to free it. That is what a command wanted; one that comes from now on concerns the next load."""
        self._is_unloading, self.unload_number = True, None
        self._start(self._unload(), "unload")

    def cannot_fit(self, error: PeriscopeError) -> None:
        """It has failed before it was loaded; idempotent."""
        self._need = None
        if self.state is ModelState.UNLOADED or self.error is not error:
            self._fail(error, FIRST_BACK_OFF_S)

    def give_up(self) -> None:
        """A failed model is unloaded again, and tried anew when it is asked for."""
        self.error, self.retry_at, self._num_failures = None, 0.0, 0
        self._go(ModelState.UNLOADED)

    async def close(self, *, drain_s: float) -> None:
        """Wait up to `drain_s` for the leases out, then free the model, whatever it is doing."""
        if self._task is not None and not self._is_unloading:
            _cancel_begun(self._task)
            await asyncio.wait({self._task})
        if self.state is ModelState.READY:
            self._go(ModelState.DRAINING)
        if self.num_leases and self.state is ModelState.DRAINING:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain_s):
                    await self.is_unused.wait()
            if self.num_leases:
                logger.warning("model %s: %d leases still out after %.0f s", self.name, self.num_leases, drain_s)
        if self.state is ModelState.DRAINING and not self._is_unloading:
            self.unload()
        if self._task is not None:
            await asyncio.wait({self._task})

    def _start(self, work: Awaitable[None], what: str) -> None:
        async def run() -> None:
            try:
                await work
            finally:
                self._task = None
                self._changed()

        self._task = asyncio.create_task(run(), name=f"{what} {self.name}")

    async def _measure(self) -> None:
        try:
            self._need = await self.spec.measure()
        except Exception as error:  # noqa: BLE001 - whatever its files do to the reader is told to who asked
            self._fail_to_load(error)

    async def _load(self, need: Need) -> None:
        self._need = None  # files change: they are measured again before the next load
        try:
            engine = await self.spec.load(self._progress_to(asyncio.get_running_loop()))
        except asyncio.CancelledError:
            self._promised_bytes, self.load_progress = 0, None
            self._go(ModelState.UNLOADED)
            raise
        except Exception as error:  # noqa: BLE001 - as above
            self._fail_to_load(error)
            return
        finally:
            self._is_unloading = False
        self.engine, self.error, self._num_failures = engine, None, 0
        self._promised_bytes = engine.weights_bytes + need.reserve_bytes
        self._ready_at = self._used_at = self._timers.now()
        self._ready_number = self._next_number()
        self._go(ModelState.READY)
        self._watching = asyncio.create_task(self._watch(engine), name=f"watch {self.name}")

    def _progress_to(self, loop: asyncio.AbstractEventLoop) -> LoadProgress:
        def note(done: int, total: int) -> None:
            self.load_progress = (done, total)
            self._publish(ModelLoadProgress(self.name, done, total))
            self._changed()

        def progress(done: int, total: int) -> None:
            try:
                loop.call_soon_threadsafe(note, done, total)
            except RuntimeError:  # the loop is closed: nobody watches any more
                return

        return progress

    async def _watch(self, engine: PooledEngine) -> None:
        await engine.ended()
        if self.engine is not engine or self._is_unloading:
            return
        now, was_to_go = self._timers.now(), self.state is ModelState.DRAINING or self.unload_number is not None
        self._num_deaths = 1 if now - self._ready_at >= LASTING_S else self._num_deaths + 1
        back_off_s = 0.0 if self._num_deaths == 1 else _back_off_s(self._num_deaths - 2)
        self._fail(ModelUnavailable("Its worker ended unexpectedly; the server log has details."), back_off_s)
        if self._num_deaths >= MAX_DEATHS and not self.spec.is_isolated:
            self._publish(ModelGivenUp(self.name))
        if not was_to_go:
            self._died(self)
        self._changed()

    async def _unload(self) -> None:
        engine, self.engine = self.engine, None
        try:
            if engine is not None:
                await engine.close()
        finally:
            self._is_unloading, self._promised_bytes = False, 0
            self._go(ModelState.UNLOADED)

    def _fail_to_load(self, error: Exception) -> None:
        if not isinstance(error, PeriscopeError):
            logger.error("model %s: load failed", self.name, exc_info=error)
            error = ModelUnavailable(f"{type(error).__name__}: {error}.")
        self._num_failures += 1
        self._fail(error, _back_off_s(self._num_failures - 1))

    def _fail(self, error: PeriscopeError, back_off_s: float) -> None:
        self.error, self.engine = error, None
        self._promised_bytes, self.unload_number, self.load_progress = 0, None, None
        self.retry_at = self._timers.now() + back_off_s
        if self.state is not ModelState.FAILED:
            self._go(ModelState.FAILED)

    def _go(self, new: ModelState) -> None:
        old, self.state = self.state, new
        check_transition(old, new)
        if old is ModelState.FAILED and self.restart is not None:
            self.restart.cancel()
            self.restart = None
        reason = self.error.message if new is ModelState.FAILED and self.error else None
        logger.info("model %s: %s -> %s%s", self.name, old, new, f" ({reason})" if reason else "")
        self._publish(ModelStateChanged(self.name, old, new, reason))

    def end_unload_command(self) -> None:
        """Idempotent: a command to unload is done when it is not in memory and nobody older is still to be served."""
        if self.unload_number is None or self.state not in {ModelState.UNLOADED, ModelState.FAILED}:
            return
        wanting = (ticket.facts for ticket in self.waiting if not ticket.facts.is_reserved)
        if not any(facts.number < self.unload_number for facts in wanting):
            self.unload_number = None

    def publish_changes(self) -> None:
        """An event if the queue, the leases or the pin are not as they were at the last one."""
        row = (self.num_leases, self.num_waiting, self.is_pinned)
        if row != self._told_row:
            self._told_row = row
            self._publish(ModelChanged(self.name))

    @property
    def idle_s(self) -> float | None:
        """Since it was used last, while it is loaded and nobody uses it."""
        if self.state is not ModelState.READY or self.num_leases or self.waiting:
            return None
        return max(self._timers.now() - self._used_at, 0.0)

    @property
    def load_eta_s(self) -> float | None:
        """About how long the load will still take, by what it took so far."""
        if self.state is not ModelState.LOADING or self.load_progress is None or self.load_progress[0] <= 0:
            return None
        done, total = self.load_progress
        return max(total - done, 0) * (self._timers.now() - self.load_started_at) / done


def _cancel_begun(task: asyncio.Task[None]) -> None:
    """Cancel it after its first step: a task that is cancelled before that never runs its clean-up."""
    asyncio.get_running_loop().call_soon(task.cancel)


def _back_off_s(num_before: int) -> float:
    return float(min(FIRST_BACK_OFF_S * 2**num_before, MAX_BACK_OFF_S))
