"""IsolatedVisionLanguageEngine: a captioner in a process of its own. Event loop only; the model is in that process.

The process is a fresh interpreter (MLX does not survive a fork). A crash in a kernel, the system's out-of-memory killer
or a step that never ends costs the running descriptions and nothing else; the pool starts a new process.

Differences from a captioner in the server's own process:

- `DeviceTurn` does not work across processes: the system alone divides the GPU, and `captioner_share` has no effect.
- Its memory is its own: MLX counts, caches and limits it there, and the server's `mx.get_active_memory` does not see
  it. The pool counts it by `memory.weights_bytes`, like any other model. The wired limit applies to each process
  separately: here it is what Metal recommends, and `memory.wired_limit` concerns the server's process only. As long as
  the pool keeps to its budget, the wired memory of all processes together is within the budget.
- Unloading returns all of its memory, because the process ends.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self

from periscope.core import EngineMemory
from periscope.engine.closed_on_exit import ClosedOnExit
from periscope.engine.config import EngineConfig
from periscope.engine.isolated import program
from periscope.engine.isolated.messages import (
    BrokenFrame,
    Cancel,
    Describe,
    Described,
    Dropped,
    Failed,
    Load,
    Loaded,
    Progress,
    ReleaseMemory,
    Reply,
    Request,
    Started,
    frame_of,
    next_message,
)
from periscope.engine.loading.import_structure import kept_file
from periscope.engine.loading.loader import LoadProgress
from periscope.errors import EngineClosed, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.core import Image
    from periscope.engine.device.turn import DeviceTurn

logger = logging.getLogger(__name__)

PROGRAM = Path(program.__file__)
#: How long a cancelled row may stay in the batch. No step takes that long, not even a large image on a slow machine.
HANG_S = 30.0
#: A process that is asked to end does so at once, unless it is stopped or stuck in a call that never returns.
CLOSE_S = 5.0
_MANY_BYTES = 65536


class IsolatedVisionLanguageEngine(ClosedOnExit):
    """Owns the process and its pending descriptions, by number. Requests of all callers share its batch."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, progress: LoadProgress, hang_s: float) -> None:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
        self._process = process
        self._requests, self._replies = process.stdin, process.stdout
        self._name = name
        self._progress = progress
        self._hang_s = hang_s
        self._outcome: asyncio.Future[Loaded | Failed] = asyncio.get_running_loop().create_future()
        self._model: Loaded | None = None
        self._numbers = itertools.count()
        self._pending: dict[int, asyncio.Future[Described | Failed]] = {}
        self._on_start: dict[int, Callable[[], None]] = {}
        self._cancelled: dict[int, asyncio.TimerHandle] = {}
        self._is_closing = False
        self._ended = asyncio.Event()
        self._reading = asyncio.create_task(self._read(), name=f"captioner {name}")

    def __repr__(self) -> str:
        return f"<IsolatedVisionLanguageEngine {self._name} pid={self.pid} alive={self.is_alive} rows={self.num_rows}>"

    @classmethod
    async def load(
        cls,
        model: str,
        config: EngineConfig | None = None,
        *,
        turn: DeviceTurn | None = None,  # noqa: ARG003 - turns do not reach across processes
        progress: LoadProgress = lambda _done, _total: None,
        hang_s: float = HANG_S,
        program: Path = PROGRAM,
    ) -> Self:
        """Start a process and load a vision-language model in it. Cancelling ends the process.

        Args:
            turn: ignored; all engines have the same signature.
            hang_s: how long a cancelled description may run before the process counts as hung and is killed.
            program: the script that the process runs.

        Raises:
            ModelLoadError: the model is not on this disk, or cannot be loaded.
        """
        engine = cls(await _start(program), Path(model).name, progress, hang_s)
        try:
            await engine._load(Load(model, config or EngineConfig()))
        except BaseException:
            await engine._kill_and_wait()
            raise
        return engine

    @property
    def is_alive(self) -> bool:
        """Whether the model is loaded and accepts requests."""
        return self._model is not None and not self._is_closing and not self._ended.is_set()

    @property
    def num_rows(self) -> int:
        """Requests in the process, including cancelled ones that it has not removed yet."""
        return len(self._pending) + len(self._cancelled)

    @property
    def path(self) -> Path:
        """The folder that the model was loaded from."""
        return Path(self._model.path if self._model else "")

    @property
    def memory(self) -> EngineMemory:
        """The weights in the other process. Requests count as 0: what they take there is bounded by its reservation."""
        return EngineMemory(weights_bytes=self._model.weights_bytes if self._model else 0)

    @property
    def pid(self) -> int:
        """The id of the captioner's process."""
        return self._process.pid

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None] = lambda: None
    ) -> tuple[str, int]:
        """Return a greedy description of one image (may be empty) and its number of tokens. Cancelling frees its row.

        Args:
            on_start: called once, on the event loop, when work on the image starts.

        Raises:
            GenerationFailed, EngineClosed: this image's request failed.
        """
        if not self.is_alive:
            raise EngineClosed("This model is no longer loaded.")
        number = next(self._numbers)
        pending = self._pending[number] = asyncio.get_running_loop().create_future()
        self._on_start[number] = on_start
        self._send(Describe(number, image, prompt, max_tokens))
        try:
            answer = await pending
        finally:
            self._on_start.pop(number, None)
            if self._pending.pop(number, None) is not None:  # still pending: the caller has been cancelled
                self._cancel(number)
        if isinstance(answer, Failed):
            raise answer.error()
        return answer.text, answer.num_tokens

    def release_memory(self) -> None:
        """Ask the process to free its spare memory. Does not wait for it."""
        self._send(ReleaseMemory())

    async def ended(self) -> None:
        """Wait until the process has ended, for whatever reason."""
        await self._ended.wait()

    async def close(self) -> None:
        """End the process. Idempotent. Running requests fail with EngineClosed."""
        self._is_closing = True
        self._requests.close()
        deadline = asyncio.get_running_loop().call_later(CLOSE_S, self._kill)
        try:
            await self._ended.wait()
        finally:
            deadline.cancel()
            self._kill()  # at once if the caller is cancelled

    async def _load(self, request: Load) -> None:
        self._send(request)
        outcome = await self._outcome
        if isinstance(outcome, Failed):
            raise outcome.error()
        self._model = outcome

    def _send(self, request: Request) -> None:
        """Write without waiting. What the pipe does not take is buffered, at most the pending requests."""
        if not self._requests.is_closing():
            self._requests.write(frame_of(request))

    def _cancel(self, number: int) -> None:
        if not self._ended.is_set():
            self._send(Cancel(number))
            self._cancelled[number] = asyncio.get_running_loop().call_later(self._hang_s, self._end_hanging)

    def _end_hanging(self) -> None:
        logger.error("captioner %s kept a cancelled row for %g s: it hangs, so it is killed", self._name, self._hang_s)
        self._kill()

    def _kill(self) -> None:
        """Kill the process. Idempotent. `Process.kill` polls first, which takes the exit status from asyncio (3.11)."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _kill_and_wait(self) -> None:
        """End a process whose model could not be loaded."""
        self._is_closing = True
        self._kill()
        await self._ended.wait()

    async def _read(self) -> None:
        """The task that reads replies until the pipe ends, then fails all pending requests."""
        try:
            while (reply := await next_message(self._replies)) is not None:
                self._take(reply)
        except BrokenFrame as error:
            logger.error("captioner %s sent %s, so it is killed", self._name, error)  # noqa: TRY400 - expected
        finally:
            self._kill()  # a process without this pipe is of no use
            self._requests.close()
            with suppress(OSError):
                while await self._replies.read(_MANY_BYTES):
                    pass
            self._end(_told(await self._process.wait()))

    def _take(self, reply: Request | Reply) -> None:
        match reply:
            case Progress(done_bytes, total_bytes):
                self._progress(done_bytes, total_bytes)
            case Loaded() | Failed(number=None):
                if not self._outcome.done():
                    self._outcome.set_result(reply)
            case Started(number):
                self._on_start.pop(number, _ignore_start)()
            case Dropped(number):
                self._forget(number)
            case Described(number) | Failed(int(number)):
                self._forget(number)
                self._answer(number, reply)
            case _:
                raise BrokenFrame(f"a {type(reply).__name__}")

    def _forget(self, number: int) -> None:
        if number in self._cancelled:
            self._cancelled.pop(number).cancel()

    def _answer(self, number: int, answer: Described | Failed) -> None:
        pending = self._pending.pop(number, None)
        if pending is not None and not pending.done():
            pending.set_result(answer)

    def _end(self, how: str) -> None:
        if self._is_closing:
            closed = EngineClosed("The model was unloaded while this request ran.")
        else:
            logger.error("the process of captioner %s has ended unexpectedly (%s)", self._name, how)
            closed = EngineClosed(f"The captioner's process has ended ({how}).")
        for number in tuple(self._pending):
            self._answer(number, Failed.of(closed))
        for number in tuple(self._cancelled):
            self._forget(number)
        if not self._outcome.done():
            self._outcome.set_result(Failed.of(ModelLoadError(f"The process that loaded it has ended ({how}).")))
        self._ended.set()


def _ignore_start() -> None:
    """Stands in for the `on_start` of a caller that was cancelled."""


async def _start(program: Path) -> asyncio.subprocess.Process:
    """Start a fresh interpreter with the import path of this one, and what it knows of transformers' files."""
    kept = kept_file()
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # else the folder of the program would be first in the import path
        str(program),
        *([] if kept is None else [str(kept)]),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": _import_path()},
    )


def _import_path() -> str:
    return os.pathsep.join(str(Path(path).absolute()) for path in sys.path)


def _told(status: int) -> str:
    """Pure: an exit status as text."""
    return f"exit status {status}" if status >= 0 else f"signal {-status}: {signal.strsignal(-status)}"
