"""One configured model's place in the pool: its state, its engine, its leases. Event loop only."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from periscope.errors import ModelUnavailable, PeriscopeError, ServerStopping
from periscope.events import ModelGivenUp, ModelLoadProgress, ModelStateChanged
from periscope.pool.state import ModelState, check_transition

if TYPE_CHECKING:
    from periscope.events import Event

logger = logging.getLogger(__name__)

#: Wait after a failed load before the next try; doubled with each failure.
FIRST_BACK_OFF_S = 5.0
MAX_BACK_OFF_S = 300.0
#: Workers of one model that die in a row, none of them having lived for LASTING_S: then it is given up.
MAX_DEATHS = 3
LASTING_S = 600.0


class PooledEngine(Protocol):
    """What the pool asks of an engine, whatever it computes."""

    @property
    def is_alive(self) -> bool:
        """It takes requests."""
        ...

    async def ended(self) -> None:
        """Wait until it has ended, for whatever reason."""
        ...

    async def close(self) -> None:
        """Idempotent: free the model."""
        ...


#: Called from any thread with (bytes loaded, bytes in all).
LoadProgress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How the pool gets a model: its configured name, and a load that may take minutes and may be cancelled."""

    name: str
    load: Callable[[LoadProgress], Awaitable[PooledEngine]]


class Slot:
    """Owns one model's state machine. Concurrent loads of it are one load."""

    def __init__(
        self, spec: ModelSpec, publish: Callable[[Event], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = spec.name
        self.state = ModelState.UNLOADED
        self.error: PeriscopeError | None = None
        self.num_leases = 0
        self._spec = spec
        self._publish = publish
        self._clock = clock
        self._engine: PooledEngine | None = None
        self._loading: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._num_failures = 0
        self._num_deaths = 0
        self._ready_at = 0.0
        self._retry_at = 0.0
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Slot {self.name} {self.state} leases={self.num_leases}>"

    @property
    def engine(self) -> PooledEngine | None:
        """The loaded engine, to look at; use needs a lease."""
        return self._engine

    async def acquire(self) -> PooledEngine:
        """A lease on the loaded model; loads it first if need be. Each one needs a `release`.

        Raises:
            ModelUnavailable: it failed to load, now or within the back-off.
            ServerStopping: the pool is closing.
        """
        while self.state is not ModelState.READY or self._engine is None:
            if self._is_closed:
                raise ServerStopping("The server is stopping.")
            self._start_load()
            if self._loading is not None:
                await asyncio.shield(self._loading)
        self.num_leases += 1
        self._idle.clear()
        return self._engine

    def release(self) -> None:
        """Give a lease back. Never waits, so a cancelled request cannot be stopped from doing it."""
        self.num_leases -= 1
        if self.num_leases == 0:
            self._idle.set()

    async def load(self) -> None:
        """Load now if unloaded, and wait until it is ready or failed; the outcome is in `state` and `error`."""
        if self.state is ModelState.UNLOADED:
            self._start_load()
        if self._loading is not None:
            await asyncio.shield(self._loading)

    async def close(self, *, drain_s: float) -> None:
        """Take no new leases, wait up to `drain_s` for the ones out, then free the model."""
        self._is_closed = True
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        if self.state is not ModelState.READY or self._engine is None:
            return
        self._go(ModelState.DRAINING)
        if self.num_leases:
            await asyncio.wait({asyncio.ensure_future(self._idle.wait())}, timeout=drain_s)
        if self.num_leases:
            logger.warning("model %s: %d leases still out after %.0f s", self.name, self.num_leases, drain_s)
        await self._engine.close()
        self._engine = None
        self._go(ModelState.UNLOADED)

    def _start_load(self) -> None:
        if self.state is ModelState.FAILED and (wait_s := self._retry_at - self._clock()) > 0:
            reason = self.error.message if self.error else "it failed"
            raise ModelUnavailable(f"Model {self.name} is not available: {reason} Next try in {wait_s:.0f} s.")
        if self.state in {ModelState.UNLOADED, ModelState.FAILED}:
            self._go(ModelState.LOADING)
            self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")

    async def _load(self) -> None:
        try:
            engine = await self._spec.load(self._progress_to(asyncio.get_running_loop()))
        except asyncio.CancelledError:
            self._go(ModelState.UNLOADED)
            raise
        except PeriscopeError as error:
            self._fail(error)
        except Exception as error:
            logger.exception("model %s: load failed", self.name)
            self._fail(ModelUnavailable(f"{type(error).__name__}: {error}."))
        else:
            self._engine, self.error, self._num_failures = engine, None, 0
            self._ready_at = self._clock()
            self._go(ModelState.READY)
            self._watching = asyncio.create_task(self._watch(engine), name=f"watch {self.name}")
        finally:
            self._loading = None

    def _progress_to(self, loop: asyncio.AbstractEventLoop) -> LoadProgress:
        def progress(done: int, total: int) -> None:
            event = ModelLoadProgress(self.name, done, total)
            try:
                loop.call_soon_threadsafe(self._publish, event)
            except RuntimeError:  # the loop is closed: nobody watches any more
                return

        return progress

    async def _watch(self, engine: PooledEngine) -> None:
        await engine.ended()
        if self.state is ModelState.READY and self._engine is engine:
            self._engine = None
            self._num_deaths = 1 if self._clock() - self._ready_at >= LASTING_S else self._num_deaths + 1
            self._fail(ModelUnavailable("Its worker ended unexpectedly; the server log has details."))
            if self._num_deaths >= MAX_DEATHS:
                self._publish(ModelGivenUp(self.name))

    def _fail(self, error: PeriscopeError) -> None:
        self.error = error
        self._retry_at = self._clock() + min(FIRST_BACK_OFF_S * 2**self._num_failures, MAX_BACK_OFF_S)
        self._num_failures += 1
        self._go(ModelState.FAILED)

    def _go(self, new: ModelState) -> None:
        old, self.state = self.state, new
        check_transition(old, new)
        reason = self.error.message if new is ModelState.FAILED and self.error else None
        logger.info("model %s: %s -> %s%s", self.name, old, new, f" ({reason})" if reason else "")
        self._publish(ModelStateChanged(self.name, old, new, reason))
