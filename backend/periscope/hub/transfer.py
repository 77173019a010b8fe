"""One large file from the hub into the cache, in pieces that survive a broken connection, Ctrl-C and a new process.

huggingface_hub (2.4) throws away what has arrived of a file when a process ends, and so does its Xet client: both begin
a file of gigabytes again. So large files come over plain HTTP with Range, into the blob that the library would have
made, whose digest is checked. Runs on a worker thread of `download.py`.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.utils import WeakFileLock, build_hf_headers, get_session, hf_raise_for_status

from periscope.errors import HubError
from periscope.hub.failures import is_passing

if TYPE_CHECKING:
    from periscope.hub.plan import DownloadPlan, HubFile

#: Small enough that progress moves on a slow line.
_PIECE_BYTES = 256 * 1024
#: In a row, without a single new byte.
MAX_FAILURES = 5
_LONGEST_WAIT_S = 16.0
_SHA256_LENGTH = 64


class PullStopped(Exception):
    """The pull was interrupted; what has arrived stays."""


class _WrongBytesKept(ConnectionError):
    """What was kept and what came to it are not the file that the hub lists: it begins again."""


class FileTransfer:
    """Owns one file's way into the cache; `run` once.

    Args:
        endpoint: of the hub; None = what the environment says.
        first_wait_s: before the first new try; doubles with each.
        stop: set = give up at the next piece.
        on_bytes: told how much of the file is on this disk, on this thread.
    """

    def __init__(
        self,
        plan: DownloadPlan,
        file: HubFile,
        *,
        endpoint: str | None,
        first_wait_s: float,
        stop: threading.Event,
        on_bytes: Callable[[str, int], None],
    ) -> None:
        self._plan = plan
        self._file = file
        self._endpoint = endpoint
        self._first_wait_s = first_wait_s
        self._stop = stop
        self._on_bytes = on_bytes
        self._num_here = 0

    def run(self) -> None:
        """Blocks until the file is whole, trying again as long as it helps.

        Raises:
            PullStopped: `stop` was set.
            Exception: of the library or the disk, when trying again does not help.
        """
        num_failures = 0
        while True:
            num_here_before = self._num_here
            try:
                return self._fetch()
            except Exception as error:
                num_failures = 1 if self._num_here > num_here_before else num_failures + 1
                if num_failures > MAX_FAILURES or not is_passing(error):
                    raise
            if self._stop.wait(min(self._first_wait_s * 2 ** (num_failures - 1), _LONGEST_WAIT_S)):
                raise PullStopped

    def _fetch(self) -> None:
        """One try, from where the last one ended. The lock is the library's own: two pulls do not write one file."""
        blob, partial = self._plan.blob(self._file), self._plan.partial(self._file)
        lock = self._plan.folder.parent / ".locks" / self._plan.folder.name / f"{self._file.digest}.lock"
        for folder in (blob.parent, lock.parent):
            folder.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(lock):
            if not blob.exists():
                with partial.open("ab") as out:
                    is_resumed = out.tell() > 0
                    if self._complete(out, partial) != self._file.digest:
                        out.truncate(0)
                        self._tell(0)
                        raise self._wrong_bytes(is_resumed=is_resumed)
                partial.replace(blob)
        self._tell(self._file.size_bytes)

    def _wrong_bytes(self, *, is_resumed: bool) -> Exception:
        """Pure. A part of some other time may be to blame; a file that came in one go will not come better."""
        if is_resumed:
            return _WrongBytesKept()
        return HubError(f"What the hub sent of {self._file.name} is damaged. Try again later, or another HF_ENDPOINT.")

    def _complete(self, out: IO[bytes], partial: Path) -> str:
        """Append what is missing. Returns the digest of all of it."""
        hasher = _hasher(self._file)
        with partial.open("rb") as arrived:
            while piece := arrived.read(_PIECE_BYTES):
                hasher.update(piece)
        start = out.tell()
        self._tell(start)
        if start < self._file.size_bytes:
            hasher = self._receive(out, start, hasher)
        return str(hasher.hexdigest())

    def _receive(self, out: IO[bytes], start: int, hasher: Any) -> Any:
        """From `start` to the end, or all of it if the server knows no ranges."""
        headers = build_hf_headers()
        headers["Accept-Encoding"] = "identity"
        if start:
            headers["Range"] = f"bytes={start}-"
        url = hf_hub_url(self._plan.hub_id, self._file.name, revision=self._plan.commit, endpoint=self._endpoint)
        timeout_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
        with get_session().stream("GET", url, headers=headers, timeout=timeout_s) as response:
            hf_raise_for_status(response)
            if start and response.status_code != 206:
                out.truncate(0)
                start, hasher = 0, _hasher(self._file)
            for piece in response.iter_bytes(_PIECE_BYTES):
                if self._stop.is_set():
                    raise PullStopped
                out.write(piece)
                out.flush()  # what is counted survives the end of the process
                hasher.update(piece)
                start += len(piece)
                self._tell(start)
        return hasher

    def _tell(self, num_bytes: int) -> None:
        self._num_here = num_bytes
        self._on_bytes(self._file.name, min(num_bytes, self._file.size_bytes))


def _hasher(file: HubFile) -> Any:
    if len(file.digest) == _SHA256_LENGTH:
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.size_bytes, usedforsecurity=False)
