"""The asyncio side of a worker: start it, wait for its model, submit requests, end it. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Self

from periscope.engine.worker.commands import ReleaseMemory, Shutdown, Submit
from periscope.engine.worker.stream import TokenStream
from periscope.engine.worker.thread import FactsT, ModelWorker, WorkerState
from periscope.errors import EngineClosed, PeriscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.core import GenerationParams
    from periscope.engine.device.turn import DeviceTurn
    from periscope.engine.structured.matcher import Grammar
    from periscope.engine.worker.commands import ImagePrompt, TokenPrompt
    from periscope.engine.worker.contracts import LoadedModel


class WorkerHost(Generic[FactsT]):
    """Owns one worker thread on behalf of an engine. The model stays with the worker; its `facts` are known here."""

    def __init__(self, worker: ModelWorker[FactsT], facts: FactsT, ended: asyncio.Event) -> None:
        self.facts = facts
        self._worker = worker
        self._ended = ended

    @classmethod
    async def start(
        cls, name: str, load: Callable[[], LoadedModel[FactsT]], turn: DeviceTurn, *, is_background: bool = False
    ) -> WorkerHost[FactsT]:
        """Start the thread and wait until its model is loaded. Cancelling ends the thread after the load.

        Args:
            is_background: its work makes way for that of other workers (see `DeviceTurn`).

        Raises:
            ModelLoadError: what the load failed of.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[FactsT] = loop.create_future()
        ended = asyncio.Event()

        def settle(outcome: FactsT | PeriscopeError) -> None:
            if loaded.done():
                return
            if isinstance(outcome, PeriscopeError):
                loaded.set_exception(outcome)
            else:
                loaded.set_result(outcome)

        worker = ModelWorker(
            name,
            load,
            turn=turn.join(name, is_background=is_background),
            on_loaded=lambda outcome: _call_in(loop, lambda: settle(outcome)),
            on_ended=lambda: _call_in(loop, ended.set),
        )
        worker.start()
        try:
            facts = await loaded
        except BaseException:
            worker.send(Shutdown())
            raise
        return cls(worker, facts, ended)

    @property
    def is_alive(self) -> bool:
        """The worker takes requests."""
        return self._worker.state is WorkerState.RUNNING

    @property
    def num_rows(self) -> int:
        """Requests the worker holds now."""
        return self._worker.num_rows

    @property
    def prompt_cache_bytes(self) -> int:
        """Memory kept for prompts that begin alike."""
        return self._worker.prompt_cache_bytes

    @property
    def weights_bytes(self) -> int:
        """What the model's parameters take."""
        return self._worker.weights_bytes

    @property
    def working_bytes(self) -> int:
        """What live requests take beside the weights."""
        return self._worker.working_bytes

    def release_memory(self) -> None:
        """Give back what is only kept for later, soon."""
        self._worker.send(ReleaseMemory())

    def submit(
        self, prompt: TokenPrompt | ImagePrompt, params: GenerationParams, grammar: Grammar | None = None
    ) -> TokenStream:
        """Queue a request; its chunks come out of the returned stream.

        Raises:
            EngineClosed: the worker has ended.
        """
        if not self.is_alive:
            raise EngineClosed("This model is no longer loaded.")
        stream = TokenStream(asyncio.get_running_loop())
        self._worker.send(Submit(prompt, params, stream, grammar))
        return stream

    async def ended(self) -> None:
        """Wait until the worker has ended, for whatever reason."""
        await self._ended.wait()

    async def close(self) -> None:
        """Idempotent: fail what still runs, free the model, wait for the thread."""
        self._worker.send(Shutdown())
        await self._ended.wait()
        await asyncio.to_thread(self._worker.join)


class HostedEngine:
    """What every engine is on the outside: alive or ended, closable, a context manager. Owns its worker's host."""

    def __init__(self, host: WorkerHost[Any]) -> None:
        self._host = host

    @property
    def is_alive(self) -> bool:
        """The model is loaded and takes requests."""
        return self._host.is_alive

    @property
    def num_rows(self) -> int:
        """Requests the worker holds now."""
        return self._host.num_rows

    @property
    def weights_bytes(self) -> int:
        """What the model's parameters take in memory, those of a draft model included."""
        return self._host.weights_bytes

    @property
    def working_bytes(self) -> int:
        """About what live requests take beside the weights; 0 when there are none."""
        return self._host.working_bytes

    def release_memory(self) -> None:
        """Give back, soon, what is only kept for later: states of earlier prompts, MLX's spare buffers.

        Running requests are not touched.
        """
        self._host.release_memory()

    async def ended(self) -> None:
        """Wait until the worker has ended, for whatever reason."""
        await self._host.ended()

    async def close(self) -> None:
        """Idempotent: free the model and end its thread. Running requests fail with EngineClosed."""
        await self._host.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop is closed: nobody is left to tell
        return
