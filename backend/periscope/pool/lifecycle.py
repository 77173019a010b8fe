"""Lifecycle: how one model is measured, loaded, drained and unloaded. Event loop only.

It carries out the effects of plans and decides nothing. A transition that is not in the table is an error.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from periscope.core import Footprint, ModelState
from periscope.errors import ModelUnavailable, PeriscopeError
from periscope.events import ModelGivenUp, ModelLoadProgress, ModelStateChanged
from periscope.pool.back_off import FIRST_BACK_OFF_S, BackOff
from periscope.pool.state import check_transition

if TYPE_CHECKING:
    from periscope.pool.contracts import LoadProgress, ModelSpec, PooledEngine, PoolHooks, TimerHandle

logger = logging.getLogger(__name__)


class Lifecycle:
    """Owns one model's state, its engine, the task that measures, loads or frees it, and the timer of its next load.

    Attributes:
        error: why the model failed; None unless it did.
        engine: None unless the model is ready or draining.
        footprint: what a load would take; None until its files were measured.
        is_unloading: it is being freed, or its load is being cancelled.
        unload_number: a command to unload holds for the tickets below this number; None = there is no command.
        load_progress: bytes loaded and bytes in all of the load under way.
        ready_number, ready_at: see `ModelFacts`.
        retry_at: when a failed model may be tried again.
    """

    def __init__(self, spec: ModelSpec, hooks: PoolHooks) -> None:
        self.state = ModelState.UNLOADED
        self.error: PeriscopeError | None = None
        self.engine: PooledEngine | None = None
        self.footprint: Footprint | None = None
        self.is_unloading = False
        self.unload_number: int | None = None
        self.load_progress: tuple[int, int] | None = None
        self.ready_number = 0
        self.ready_at = self.retry_at = 0.0
        self._spec = spec
        self._hooks = hooks
        self._back_off = BackOff()
        self._reserved_bytes = 0
        self._load_started_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None  # a task without a reference may be collected
        self._return: TimerHandle | None = None

    # --- state ---------------------------------------------------------------------------------------------------

    @property
    def is_measuring(self) -> bool:
        """Whether its files are being read. Nothing is reserved for a model before its load begins."""
        return self._task is not None and self._reserved_bytes == 0

    @property
    def is_at_rest(self) -> bool:
        """Nothing is measured, loaded or freed, and nothing returns by itself."""
        return self._task is None and self._return is None

    @property
    def held_bytes(self) -> int:
        """What the memory ledger counts: what is reserved, or more while its requests take more."""
        if self.engine is None:
            return self._reserved_bytes
        memory = self.engine.memory
        return max(self._reserved_bytes, memory.weights_bytes + memory.working_bytes)

    @property
    def outstanding_bytes(self) -> int:
        """Bytes that are reserved and not among this process's active bytes: not loaded yet, or in another process."""
        if self._spec.is_isolated:
            return self._reserved_bytes
        done = self.load_progress[0] if self.load_progress is not None else 0
        return max(self._reserved_bytes - done, 0) if self.state is ModelState.LOADING else 0

    @property
    def load_eta_s(self) -> float | None:
        """Estimate of the time that the load will still take, from what it took so far."""
        if self.state is not ModelState.LOADING or self.load_progress is None or self.load_progress[0] <= 0:
            return None
        done, total = self.load_progress
        return max(total - done, 0) * (self._hooks.timers.now() - self._load_started_at) / done

    # --- effects of plans --------------------------------------------------------------------------------------

    def measure(self) -> None:
        """Start to read the headers of the model's files."""
        self._start(self._measure(), "measure")

    def load(self) -> None:
        """Reserve the bytes of a measured model and start to load it."""
        assert self.footprint is not None  # noqa: S101 - a plan loads what was measured
        self._reserved_bytes = self.footprint.total_bytes
        self.load_progress, self._load_started_at = None, self._hooks.timers.now()
        self._go(ModelState.LOADING)
        self._start(self._load(self.footprint), "load")

    def cancel_load(self) -> None:
        """Stop the load under way; the model is unloaded when the load has ended."""
        assert self._task is not None  # noqa: S101 - a plan cancels a load under way
        self.is_unloading = True
        _cancel_begun(self._task)

    def drain(self) -> None:
        """Give a ready model no new leases from now on."""
        self._go(ModelState.DRAINING)

    def keep(self) -> None:
        """Make a draining model ready again."""
        self._go(ModelState.READY)

    def unload(self) -> None:
        """Start to free the model. This fulfils a command to unload; a later one concerns the next load."""
        self.is_unloading, self.unload_number = True, None
        self._start(self._unload(), "unload")

    def cannot_fit(self, error: PeriscopeError) -> None:
        """Let a measured model fail before it is loaded. Idempotent."""
        self.footprint = None
        if self.state is ModelState.UNLOADED or self.error is not error:
            self._fail(error, FIRST_BACK_OFF_S)

    # --- commands --------------------------------------------------------------------------------------------------

    def ask_to_unload(self, number: int) -> None:
        """Unload the model once the tickets below this number are served; a failed one is unloaded at once."""
        if self.state is ModelState.FAILED:
            self.error, self.retry_at = None, 0.0
            self._back_off.forget_failed_loads()
            self._go(ModelState.UNLOADED)
        self.unload_number = number

    def replace(self, spec: ModelSpec, number: int) -> None:
        """What is loaded next is another model; one in memory, or being loaded, serves tickets below `number`."""
        self._spec, self.footprint = spec, None
        self._cancel_return()
        if self.state is not ModelState.UNLOADED:
            self.ask_to_unload(number)

    def forget_unload(self) -> None:
        """Forget a command to unload, which is fulfilled or revoked. Idempotent."""
        self.unload_number = None

    async def stop_work(self) -> None:
        """Cancel a measurement or a load under way, and wait until it has ended. No load starts by itself after."""
        self._cancel_return()
        if self._task is not None and not self.is_unloading:
            _cancel_begun(self._task)
            await asyncio.wait({self._task})

    async def free(self) -> None:
        """Free a draining model even if it is in use, and wait until its memory is free."""
        if self.state is ModelState.DRAINING and not self.is_unloading:
            self.unload()
        if self._task is not None:
            await asyncio.wait({self._task})

    # --- its work --------------------------------------------------------------------------------------------------

    def _start(self, work: Awaitable[None], what: str) -> None:
        async def run() -> None:
            try:
                await work
            finally:
                self._task = None
                self._hooks.changed()

        self._task = asyncio.create_task(run(), name=f"{what} {self._spec.name}")

    async def _measure(self) -> None:
        spec = self._spec
        try:
            footprint = await spec.measure()
        except Exception as error:  # noqa: BLE001 - whatever broken files cause is told to the requests that wait
            if spec is self._spec:
                self._load_failed(error)
            return
        if spec is self._spec:  # else the model was replaced meanwhile, and is measured again
            self.footprint = footprint

    async def _load(self, footprint: Footprint) -> None:
        spec = self._spec
        self.footprint = None  # files change: they are measured again before the next load
        try:
            engine = await spec.load(self._progress_on(asyncio.get_running_loop()))
        except asyncio.CancelledError:
            self._load_given_up()
            raise
        except Exception as error:  # noqa: BLE001 - as above
            if spec is self._spec:
                self._load_failed(error)
            else:  # the model was replaced meanwhile: nothing is left to unload, or held against the new one
                self._load_given_up()
                self.forget_unload()
            return
        finally:
            self.is_unloading = False
        self.engine, self.error = engine, None
        self._back_off.forget_failed_loads()
        self._reserved_bytes = engine.memory.weights_bytes + footprint.reserve_bytes
        self.ready_at = self._hooks.timers.now()
        self.ready_number = self._hooks.next_number()
        self._go(ModelState.READY)
        self._watching = asyncio.create_task(self._watch(engine), name=f"watch {self._spec.name}")

    def _progress_on(self, loop: asyncio.AbstractEventLoop) -> LoadProgress:
        def note(done: int, total: int) -> None:
            self.load_progress = (done, total)
            self._hooks.publish(ModelLoadProgress(self._spec.name, done, total))
            self._hooks.changed()

        def progress(done: int, total: int) -> None:
            try:
                loop.call_soon_threadsafe(note, done, total)
            except RuntimeError:  # the loop is closed, and with it everything that could watch the load
                return

        return progress

    async def _watch(self, engine: PooledEngine) -> None:
        """Notice that the engine of a loaded model ends by itself."""
        await engine.ended()
        if self.engine is not engine or self.is_unloading:
            return
        is_wanted = self.state is ModelState.READY and self.unload_number is None
        back_off_s = self._back_off.worker_died(self._hooks.timers.now() - self.ready_at)
        self._fail(ModelUnavailable("Its worker ended unexpectedly; the server log has details."), back_off_s)
        if self._back_off.is_hopeless and not self._spec.is_isolated:
            self._hooks.publish(ModelGivenUp(self._spec.name))
        if is_wanted:
            self._return = self._hooks.timers.call_at(self.retry_at, self._come_back)
        self._hooks.changed()

    async def _unload(self) -> None:
        engine, self.engine = self.engine, None
        try:
            if engine is not None:
                await engine.close()
        finally:
            self.is_unloading, self._reserved_bytes = False, 0
            self._go(ModelState.UNLOADED)

    # --- transitions -----------------------------------------------------------------------------------------------

    def _come_back(self) -> None:
        self._return = None
        self._hooks.reload(self._spec.name)

    def _cancel_return(self) -> None:
        if self._return is not None:
            self._return.cancel()
            self._return = None

    def _load_given_up(self) -> None:
        self._reserved_bytes, self.load_progress = 0, None
        self._go(ModelState.UNLOADED)

    def _load_failed(self, error: Exception) -> None:
        if not isinstance(error, PeriscopeError):
            logger.error("model %s: load failed", self._spec.name, exc_info=error)
            error = ModelUnavailable(f"{type(error).__name__}: {error}.")
        self._fail(error, self._back_off.load_failed())

    def _fail(self, error: PeriscopeError, back_off_s: float) -> None:
        self.error, self.engine = error, None
        self._reserved_bytes, self.unload_number, self.load_progress = 0, None, None
        self.retry_at = self._hooks.timers.now() + back_off_s
        if self.state is not ModelState.FAILED:
            self._go(ModelState.FAILED)

    def _go(self, new: ModelState) -> None:
        old, self.state = self.state, new
        check_transition(old, new)
        if old is ModelState.FAILED:
            self._cancel_return()
        reason = self.error.message if new is ModelState.FAILED and self.error else None
        logger.info("model %s: %s -> %s%s", self._spec.name, old, new, f" ({reason})" if reason else "")
        self._hooks.publish(ModelStateChanged(self._spec.name, old, new, reason))


def _cancel_begun(task: asyncio.Task[None]) -> None:
    """Cancel the task after its first step: a task that is cancelled before it never runs its clean-up."""
    asyncio.get_running_loop().call_soon(task.cancel)
