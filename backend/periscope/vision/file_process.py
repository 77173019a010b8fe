"""FileProcess has clients' files opened in a process of its own. Its calls block, so they run in executor threads.

Whatever a file does there, a crash, work that never ends, memory without end, costs this one answer and nothing else:
the process is ended, the file is refused, and the next file gets a new process. What comes back is JSON and bytes, for
a process that a hostile file has taken over is not to be believed.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from periscope.errors import ServerBusy
from periscope.vision.file_program import READY

logger = logging.getLogger(__name__)

#: Beyond the time that a file may take by its own settings: one step that never ends.
GRACE_S: Final = 10.0
#: A busy machine may take long to import what the program needs; that is no fault of the file.
_START_TIMEOUT_S: Final = 60.0
_WAIT_S: Final = 30.0
_RETRY_AFTER_S: Final = 5
#: More than the text of any document or the frames of any video.
_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024


class FileProcessFailed(Exception):
    """The process ended over this file, took too long, or answered nonsense."""


class FileProcess:
    """Owns the process, which is started when it is needed, and the turn to ask it; it ends with this object.

    Args:
        program: what runs in it; it answers through `answer_requests` of `file_program.py`.
        grace_s: how long an answer may take beyond the time that it is asked with.
    """

    def __init__(self, program: Path, *, grace_s: float = GRACE_S) -> None:
        self._program = program
        self._grace_s = grace_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., FileProcess] | None = None

    def ask(self, request: object, *, max_seconds: float) -> tuple[dict[str, Any], bytes]:
        """The answer to one request, which has an `error` and a `reason` where the file cannot be taken.

        Args:
            request: frozen data that the program knows; it is pickled.
            max_seconds: the program keeps to it by itself, or is ended some seconds later.

        Raises:
            FileProcessFailed: the file cost the process its life.
            ServerBusy: other files were being read all the time, or the process did not start.
        """
        if not self._turn.acquire(timeout=_WAIT_S):
            raise ServerBusy("The server is reading other files. Try again soon.", retry_after_s=_RETRY_AFTER_S)
        try:
            process = self._running()
            with _killing_after(max_seconds + self._grace_s, process):
                return _exchange(process, pickle.dumps(request))
        except (OSError, EOFError, ValueError) as error:
            logger.warning("%s gave up on a file: %s", self._program.parent.name, type(error).__name__)
            self._stop()
            raise FileProcessFailed from error
        finally:
            self._turn.release()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", str(self._program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._end = weakref.finalize(self, _ended, self._process)
        self._await_ready(self._process)
        return self._process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            with _killing_after(_START_TIMEOUT_S, process):
                _exactly(process, len(READY))
        except EOFError:
            self._stop()
            logger.exception("the process that reads files (%s) did not start", self._program)
            raise ServerBusy(
                "The server could not start the process that reads files. Its log says why.",
                retry_after_s=_RETRY_AFTER_S,
            ) from None

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


@contextmanager
def _killing_after(seconds: float, process: subprocess.Popen[bytes]) -> Iterator[None]:
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], bytes]:
    """Raises OSError, EOFError or ValueError if the process ended or answers nonsense."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
    process.stdin.write(len(request).to_bytes(8, "big"))
    process.stdin.write(request)
    process.stdin.flush()
    sizes = [int.from_bytes(_exactly(process, 8), "big") for _ in range(2)]
    if sum(sizes) > _MAX_ANSWER_BYTES:
        raise ValueError("an answer of this size")
    head = json.loads(_exactly(process, sizes[0]))
    if not isinstance(head, dict):
        raise ValueError("no object")  # noqa: TRY004 - as for any other nonsense
    return head, _exactly(process, sizes[1])


def _exactly(process: subprocess.Popen[bytes], num_bytes: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - started with pipes
    data = process.stdout.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written yet
                pipe.close()
