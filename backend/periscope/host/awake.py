"""KeepAwake: no idle sleep of the Mac while there is work, and only then. Event loop only."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from typing import Protocol

logger = logging.getLogger(__name__)


class AwakeProcess(Protocol):
    """A program that keeps the machine awake as long as it runs."""

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        ...

    def terminate(self) -> None:
        """Ask it to end."""
        ...

    def wait(self) -> int:
        """Wait for its end and return the exit status."""
        ...


def caffeinate() -> AwakeProcess:
    """Start `caffeinate` of macOS: no idle sleep (`-i`) until it ends, or until this process does, however (`-w`).

    Raises:
        OSError: there is none.
    """
    argv = ["/usr/bin/caffeinate", "-i", "-w", str(os.getpid())]
    return subprocess.Popen(argv, stdin=subprocess.DEVNULL)  # noqa: S603 - fixed arguments


class KeepAwake:
    """Owns the program that keeps the machine awake.

    Args:
        start: starts it; None = this machine is never kept awake.
    """

    def __init__(self, start: Callable[[], AwakeProcess] | None) -> None:
        self._start = start
        self._process: AwakeProcess | None = None

    @property
    def is_active(self) -> bool:
        """The machine is kept awake now."""
        return self._process is not None and self._process.poll() is None

    def update(self, *, is_busy: bool) -> None:
        """Keep the machine awake while there is work. Idempotent."""
        if is_busy and not self.is_active:
            self._begin()
        elif not is_busy:
            self.end()

    def end(self) -> None:
        """The machine may sleep. Idempotent. `caffeinate` ends within milliseconds of its signal."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            process.wait()

    def _begin(self) -> None:
        if self._start is None:
            return
        try:
            self._process = self._start()
        except OSError as error:
            self._start = None
            logger.warning("the Mac cannot be kept awake while it works: %s", error)
