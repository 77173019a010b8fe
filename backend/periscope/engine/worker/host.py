"""The asyncio side of a worker: start it, wait for its model, then be the engine around it. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic

from periscope.engine.closed_on_exit import ClosedOnExit
from periscope.engine.worker.commands import EndThinking, ReleaseMemory, Settle, Shutdown, Submit
from periscope.engine.worker.stream import TokenStream
from periscope.engine.worker.thread import FactsT, ModelWorker, WorkerState
from periscope.errors import EngineClosed, PeriscopeError

if TYPE_CHECKING:
    from periscope.core import EngineMemory, GenerationParams
    from periscope.engine.device.turn import DeviceTurn
    from periscope.engine.structured.matcher import Grammar
    from periscope.engine.structured.thinking import ThinkingRules
    from periscope.engine.worker.commands import Prompt
    from periscope.engine.worker.contracts import LoadedModel


@dataclass(frozen=True, slots=True)
class RunningWorker(Generic[FactsT]):
    """A worker whose model is loaded. Whoever started it hands it to one `HostedEngine`, which ends it.

    Attributes:
        facts: what is known of the model on this side; the model itself stays with its thread.
        ended: set when the thread has ended, for whatever reason.
    """

    thread: ModelWorker[FactsT]
    facts: FactsT
    ended: asyncio.Event


async def start_worker(
    name: str,
    load: Callable[[], LoadedModel[FactsT]],
    turn: DeviceTurn,
    *,
    is_background: bool = False,
    report_interval_s: float = 0.0,
) -> RunningWorker[FactsT]:
    """Start a worker's thread and wait until its model is loaded. Cancelling ends the thread after the load.

    Args:
        is_background: its steps yield the device to those of foreground workers (see `DeviceTurn`).
        report_interval_s: see `ModelWorker`.

    Raises:
        ModelLoadError: the model could not be loaded; says why.
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
        report_interval_s=report_interval_s,
    )
    worker.start()
    try:
        facts = await loaded
    except BaseException:
        worker.send(Shutdown())
        raise
    return RunningWorker(worker, facts, ended)


class HostedEngine(ClosedOnExit):
    """Owns one worker on behalf of its requests. Base of every engine in this process.

    Its properties are what the worker's thread noted last.
    """

    def __init__(self, worker: RunningWorker[Any]) -> None:
        self._thread = worker.thread
        self._ended = worker.ended

    @property
    def is_alive(self) -> bool:
        """Whether the model is loaded and accepts requests."""
        return self._thread.state is WorkerState.RUNNING

    @property
    def num_rows(self) -> int:
        """Requests that the worker holds now."""
        return self._thread.num_rows

    @property
    def memory(self) -> EngineMemory:
        """How much memory the model takes now."""
        return self._thread.memory

    def release_memory(self) -> None:
        """Ask the worker to free its prompt cache and MLX's spare buffers. Does not wait for it.

        Running requests are not affected.
        """
        self._thread.send(ReleaseMemory())

    def submit(
        self,
        prompt: Prompt,
        params: GenerationParams,
        grammar: Grammar | None = None,
        thinking: ThinkingRules | None = None,
    ) -> TokenStream:
        """Queue a request as the worker takes it; its chunks come out of the returned stream.

        Raises:
            EngineClosed: the worker has ended.
        """
        if not self.is_alive:
            raise EngineClosed("This model is no longer loaded.")
        stream = TokenStream(asyncio.get_running_loop())
        self._thread.send(Submit(prompt, params, stream, grammar, thinking))
        return stream

    def end_thinking(self, stream: TokenStream) -> None:
        """End the thinking of the row behind a stream of `submit`. Does not wait for it."""
        self._thread.send(EndThinking(stream))

    async def settled(self) -> None:
        """Wait until the worker has handled all that was sent to it and has removed cancelled rows, or has ended."""
        settled = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._thread.send(Settle(lambda: _call_in(loop, settled.set)))
        await settled.wait()

    async def ended(self) -> None:
        """Wait until the worker has ended, for whatever reason."""
        await self._ended.wait()

    async def close(self) -> None:
        """Idempotent: free the model and end its thread. Running requests fail with EngineClosed."""
        self._thread.send(Shutdown())
        await self._ended.wait()
        await asyncio.to_thread(self._thread.join)


def _call_in(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(call)
    except RuntimeError:  # the loop is closed: nobody is left to tell
        return
