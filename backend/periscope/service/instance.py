"""One server for each state folder: the lock that says so, and what its owner leaves for others to find it by."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from periscope.service.discovery import StateFolder, read_server, write_private, write_server

if TYPE_CHECKING:
    from periscope.service.discovery import RunningServer
    from periscope.service.machine import Clock

_TOKEN_BYTES = 32
_POLL_S = 0.05


class Instance:
    """Owns the lock of a state folder, and `server.json` in it, until `held` is left.

    The lock is the kernel's (`flock`): it goes with the process, however that ends, so nothing stale is left to clear.
    """

    def __init__(self, folder: StateFolder) -> None:
        self.folder = folder
        self._instance_id: str | None = None

    def publish(self, server: RunningServer) -> None:
        """Say where this server is; a second call replaces what was said."""
        self._instance_id = server.instance_id
        write_server(self.folder, server)

    def withdraw(self) -> None:
        """Remove `server.json`, unless another process has written it. Idempotent."""
        found = read_server(self.folder)
        if found is not None and found.instance_id == self._instance_id:
            with suppress(FileNotFoundError):
                self.folder.server.unlink()


@contextmanager
def held(folder: StateFolder, clock: Clock, within_s: float = 0.0) -> Iterator[Instance | None]:
    """The folder's lock, until the block is left; None when a server has it that says where it is.

    One that does not say so has just taken it, or is stopping: it is waited for. Blocks.

    Args:
        within_s: how long; then None, too.

    Raises:
        OSError: the folder or the lock cannot be made or used.
    """
    folder.make()
    lock = os.open(folder.lock, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        end = clock.now() + within_s
        while not _is_taken(lock):
            if read_server(folder) is not None or clock.now() >= end:
                yield None
                return
            clock.sleep(_POLL_S)
        folder.server.unlink(missing_ok=True)  # of a server that was killed
        instance = Instance(folder)
        try:
            yield instance
        finally:
            instance.withdraw()
    finally:
        os.close(lock)


def _is_taken(lock: int) -> bool:
    """Whether this process has the lock now."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_or_make_token(folder: StateFolder) -> str:
    """The token in the folder, which stays the same from start to start; a new one if there is none.

    Raises:
        OSError: it cannot be read or written.
    """
    with suppress(FileNotFoundError):
        folder.token.chmod(0o600)
        if token := folder.token.read_text(encoding="ascii", errors="replace").strip():
            return token
    folder.make()
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    write_private(folder.token, f"{token}\n")
    return token
