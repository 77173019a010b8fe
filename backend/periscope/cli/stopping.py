"""How a server is asked to stop, and what happens when it cannot: signals to events, and one last deadline."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from periscope.cli.exits import ExitCode, end_process_after

#: Running requests get this long after the first signal, so that the process has ended ten seconds after it.
DRAIN_S = 8.0
#: A load cannot be interrupted inside MLX, and its thread is waited for at exit. launchd's ExitTimeOut is 30.
STOP_DEADLINE_S = 25.0
_AT_ONCE_DEADLINE_S = 2.0


@dataclass(frozen=True, slots=True)
class StopRequest:
    """What signals and commands ask for.

    Attributes:
        asked: set at the first signal or command to stop.
        at_once: set when Ctrl-C comes while the server stops already.
        reload: set at SIGHUP: models.yaml is to be read again.
        end_after: ends the process with a code after a time, whatever it does then.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    at_once: asyncio.Event = field(default_factory=asyncio.Event)
    reload: asyncio.Event = field(default_factory=asyncio.Event)
    end_after: Callable[[float, int], None] = end_process_after

    def stop(self) -> None:
        """Ask for a stop, and end the process without one when it takes too long. Idempotent."""
        if not self.asked.is_set():
            self.asked.set()
            self.end_after(STOP_DEADLINE_S, ExitCode.OK)


@contextmanager
def stop_on_signals(
    loop: asyncio.AbstractEventLoop, end_after: Callable[[float, int], None] = end_process_after
) -> Iterator[StopRequest]:
    """Inside, SIGTERM, SIGINT and SIGHUP do nothing but set the events and start the deadline.

    SIGHUP also comes when the terminal is closed in which the server was started: then it is a signal to stop. A
    SIGTERM from before counts. After a stop a further one must not spoil the exit code, by which launchd goes.
    """
    request = StopRequest(end_after=end_after)
    has_terminal = os.isatty(2)
    before = signal.getsignal(signal.SIGTERM)

    def on_signal(number: signal.Signals) -> None:
        if not request.asked.is_set():
            request.stop()
        elif number is signal.SIGINT and not request.at_once.is_set():
            request.at_once.set()
            request.end_after(_AT_ONCE_DEADLINE_S, ExitCode.INTERRUPTED)

    def on_hangup() -> None:
        if has_terminal and not os.isatty(2):
            on_signal(signal.SIGHUP)
        else:
            request.reload.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)
    if isinstance(before, _Leave) and before.came:
        request.stop()
    try:
        yield request
    finally:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.remove_signal_handler(number)
        if request.asked.is_set():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)


class _Leave:
    """The handler of SIGTERM before the event loop takes the signal. Owns whether it came.

    It raises, and whatever runs at that moment may lose the exception (a callback of a weak reference) or make another
    one of it (a class that is being made), so that has to be remembered.
    """

    def __init__(self) -> None:
        self.came = False

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.came = True
        sys.exit(ExitCode.OK)


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Inside, until `stop_on_signals` takes it, SIGTERM is a clean end of a process that serves nobody yet."""
    leave = _Leave()
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    except Exception:
        if leave.came:
            sys.exit(ExitCode.OK)
        raise
