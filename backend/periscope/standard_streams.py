"""Standard streams of a server: there in any case, and written to without waiting for somebody who does not read.

A program that starts a server with pipes and then does not read them would bring it to a halt: once a pipe is full,
the next line of the log waits for ever, and with it the event loop. Here what a full pipe does not take is lost, and
counted. Any thread.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from typing_extensions import Buffer


#: A reader that lives takes what is in a pipe within a fraction of it.
_GRACE_S: Final = 0.05
#: By descriptor: the name in `sys`, and how it is opened.
_STREAMS: Final = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def open_missing() -> None:
    """Put the null device in place of standard streams that were closed when the program was started.

    Else the next files that are opened, such as a database, get their numbers, and whatever writes to standard error
    writes into them; and `sys.stderr` is None, with which few libraries reckon.
    """
    for descriptor, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, closefd=False))


def never_wait_for_readers(*names: str) -> None:
    """Replace `sys.stderr` and the like, where they are pipes, by streams that do not wait for their readers.

    Args:
        names: `stdout`, `stderr`.
    """
    for name in names:
        stream = getattr(sys, name)
        try:
            descriptor = stream.fileno()
            is_pipe = _may_be_full(descriptor)
        except (OSError, ValueError, AttributeError):  # closed, or replaced by what is no file
            continue
        if is_pipe:
            stream.flush()
            raw = UnwaitingFile(descriptor)
            setattr(sys, name, io.TextIOWrapper(raw, stream.encoding, errors="backslashreplace", line_buffering=True))


def _may_be_full(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class UnwaitingFile(io.FileIO):
    """Owns the end of a message that was begun, and how many were lost; `write` takes whole messages.

    A message that the pipe does not take within the grace is dropped. Once it takes some again, the next says how many
    were.

    Args:
        descriptor: of a pipe.
        grace_s: how long a reader may take that has not lost anything yet: a burst of messages may fill the pipe.
    """

    def __init__(self, descriptor: int, *, grace_s: float = _GRACE_S) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self._grace_s = grace_s
        self._lock = threading.RLock()
        self._rest = b""
        self._num_lost = 0

    def write(self, message: Buffer, /) -> int:
        """Write a message, or drop it. Never fails: what cannot be told has nowhere else to be told.

        Returns:
            The bytes of the message.
        """
        data = bytes(message)
        with self._lock:
            try:
                self._write(data)
            except OSError:  # its reader is gone
                self._rest = b""
        return len(data)

    def _write(self, data: bytes) -> None:
        grace_s = 0.0 if self._num_lost else self._grace_s
        if self._rest:
            self._rest = self._rest[_write_within(grace_s, self.fileno(), self._rest) :]
        if not self._rest:
            told = self._lost_note() + data
            if num_written := _write_within(grace_s, self.fileno(), told):
                self._rest, self._num_lost = told[num_written:], 0
                return
        self._num_lost += 1

    def _lost_note(self) -> bytes:
        if not self._num_lost:
            return b""
        return f"[{self._num_lost} messages were lost here: nobody had read this output]\n".encode()


def _write_within(wait_s: float, descriptor: int, data: bytes) -> int:
    """Write to a pipe for so long at most. Returns how many bytes were written."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    deadline, left = time.monotonic() + wait_s, memoryview(data)
    while left and poll.poll(max(deadline - time.monotonic(), 0.0) * 1000):
        left = left[os.write(descriptor, left[: select.PIPE_BUF]) :]  # so much is taken without waiting
    return len(data) - len(left)
