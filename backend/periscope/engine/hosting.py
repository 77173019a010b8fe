"""The asyncio side of a worker: start it, wait for its model, submit requests, end it. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from periscope.engine.commands import ClearPromptCache, Shutdown, Submit
from periscope.engine.stream import TokenStream
from periscope.engine.worker import ModelWorker, WorkerState
from periscope.errors import EngineClosed, PeriscopeError

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.core import GenerationParams
    from periscope.engine.commands import ImagePrompt, TokenPrompt
    from periscope.engine.contracts import LoadedModel
    from periscope.engine.structured import Grammar
    from periscope.engine.turn import DeviceTurn

ModelT = TypeVar("ModelT", bound="LoadedModel")


class WorkerHost(Generic[ModelT]):
    """Owns one worker thread on behalf of an engine."""

    def __init__(self, worker: ModelWorker, model: ModelT, ended: asyncio.Event) -> None:
        self.model: ModelT | None = model
        self._worker = worker
        self._ended = ended

    @classmethod
    async def start(
        cls, name: str, load: Callable[[], ModelT], turn: DeviceTurn, *, is_background: bool = False
    ) -> WorkerHost[ModelT]:
        """Start the thread and wait until its model is loaded. Cancelling ends the thread after the load.

        Args:
            is_background: its work makes way for that of other workers (see `DeviceTurn`).

        Raises:
            ModelLoadError: what the load failed of.
        """
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[ModelT] = loop.create_future()
        ended = asyncio.Event()

        def settle(outcome: LoadedModel | PeriscopeError) -> None:
            if loaded.done():
                return
            if isinstance(outcome, PeriscopeError):
                loaded.set_exception(outcome)
            else:
                loaded.set_result(outcome)  # type: ignore[arg-type]  # `load` made it, so it is a ModelT

        worker = ModelWorker(
            name,
            load,
            turn=turn.join(name, is_background=is_background),
            on_loaded=lambda outcome: _call_in(loop, lambda: settle(outcome)),
            on_ended=lambda: _call_in(loop, ended.set),
        )
        worker.start()
        try:
            model = await loaded
        except BaseException:
            worker.send(Shutdown())
            raise
        return cls(worker, model, ended)

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

    def clear_prompt_cache(self) -> None:
        """Forget the states of earlier prompts, soon."""
        self._worker.send(ClearPromptCache())

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
        self.model = None
        self._worker.send(Shutdown())
        await self._ended.wait()
        await asyncio.to_thread(self._worker.join)


class HostedEngine(Generic[ModelT]):
    """What every engine is on the outside: alive or ended, closable, a context manager. Owns its worker's host."""

    def __init__(self, host: WorkerHost[ModelT]) -> None:
        self._host = host

    @property
    def is_alive(self) -> bool:
        """The model is loaded and takes requests."""
        return self._host.is_alive

    @property
    def num_rows(self) -> int:
        """Requests the worker holds now."""
        return self._host.num_rows

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
