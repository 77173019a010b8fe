"""`pull`: a whole model into the cache, with one count of bytes over all its files.

Small files and everything that makes the cache's layout (refs, snapshots, links) are the library's work; the large
files between come through `transfer.py`. Blocks its caller, who is told of progress on its own thread, and uses a few
worker threads of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import constants, snapshot_download
from huggingface_hub.utils import disable_progress_bars

from periscope.core import MODEL_FILES, NOT_MODEL_FILES
from periscope.hub.failures import told
from periscope.hub.plan import DownloadPlan, Hub, check_space, free_bytes, plan_download
from periscope.hub.transfer import FileTransfer

#: Below this a file is fetched again rather than resumed.
_SMALL_BYTES = 1_000_000
#: Files under way together.
_MAX_AT_ONCE = 4
_PROGRESS_INTERVAL_S = 0.2


class PullStatus(StrEnum):
    """How far a pull is: asking the hub what there is, fetching it, or done."""

    PLANNING = "planning"
    DOWNLOADING = "downloading"
    DONE = "done"


@dataclass(frozen=True, slots=True)
class PullProgress:
    """How much of a model is on this disk.

    Attributes:
        total_bytes: of all files of the model; 0 until it is known.
        completed_bytes: of them on this disk; never less than before.
        oddity: why it may be no model for MLX; known after planning.
    """

    hub_id: str
    status: PullStatus
    total_bytes: int = 0
    completed_bytes: int = 0
    oddity: str | None = None


OnProgress: TypeAlias = Callable[[PullProgress], None]


def pull(
    hub_id: str,
    revision: str | None = None,
    *,
    on_progress: OnProgress,
    hub: Hub = Hub(),
    free: Callable[[Path], int] = free_bytes,
    first_wait_s: float = 1.0,
    stop: threading.Event | None = None,
) -> Path:
    """Fetch what is missing of a model; goes on where an earlier pull ended. Idempotent; blocks, perhaps for hours.

    Args:
        stop: set it from another thread to end the pull; it is set when the pull is over.

    Returns:
        The folder of the snapshot, as the engine takes it.

    Raises:
        PeriscopeError: what is wrong and what to do about it.
        PullStopped: `stop` was set; what has arrived stays.
    """
    stop = stop or threading.Event()
    on_progress(PullProgress(hub_id, PullStatus.PLANNING))
    plan = plan_download(hub_id, revision, hub)
    check_space(plan, free)
    count = _ByteCount(plan, on_progress)
    count.tell(PullStatus.DOWNLOADING)
    try:
        folder = _fetch(plan, revision, hub, count, first_wait_s=first_wait_s, stop=stop)
    except Exception as error:
        raise told(error, hub_id, revision) from error
    for file in plan.files:
        count.set(file.name, file.size_bytes)
    count.tell(PullStatus.DONE)
    return folder


class _ByteCount:
    """Owns how much of each file is here. `set` from any thread, `tell` from the caller's."""

    def __init__(self, plan: DownloadPlan, on_progress: OnProgress) -> None:
        self._plan = plan
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._here = {file.name: plan.bytes_here(file) for file in plan.files}
        self._told = PullProgress(plan.hub_id, PullStatus.PLANNING)

    def set(self, name: str, num_bytes: int) -> None:
        with self._lock:
            self._here[name] = num_bytes

    def tell(self, status: PullStatus) -> None:
        """Tell if there is something new. A file that had to begin again holds the count until it has caught up."""
        with self._lock:
            completed = max(self._told.completed_bytes, sum(self._here.values()))
        now = PullProgress(self._plan.hub_id, status, self._plan.total_bytes, completed, self._plan.oddity)
        if now != self._told:
            self._told = now
            self._on_progress(now)


def _fetch(
    plan: DownloadPlan,
    revision: str | None,
    hub: Hub,
    count: _ByteCount,
    *,
    first_wait_s: float,
    stop: threading.Event,
) -> Path:
    missing = [file for file in plan.files if not plan.is_here(file)]
    if small := [file for file in missing if file.size_bytes < _SMALL_BYTES]:
        _library_fetches(plan.hub_id, revision, hub, [file.name for file in small])
        for file in small:
            count.set(file.name, file.size_bytes)
    # What the hub does not send over plain HTTP at all is left to the library's Xet client, which cannot resume.
    if large := [each for each in missing if _SMALL_BYTES <= each.size_bytes <= constants.MAX_HTTP_DOWNLOAD_SIZE]:
        transfers = [
            FileTransfer(plan, file, endpoint=hub.endpoint, first_wait_s=first_wait_s, stop=stop, on_bytes=count.set)
            for file in large
        ]
        _fetch_large(transfers, count, stop)
    return _library_fetches(plan.hub_id, revision, hub, MODEL_FILES)


def _library_fetches(hub_id: str, revision: str | None, hub: Hub, names: tuple[str, ...] | list[str]) -> Path:
    """What of these files has no link in the snapshot yet; a blob that is there already is linked, not fetched."""
    disable_progress_bars()
    folder = snapshot_download(
        hub_id,
        revision=revision,
        endpoint=hub.endpoint,
        cache_dir=hub.cache_dir,
        allow_patterns=names,
        ignore_patterns=NOT_MODEL_FILES,
    )
    return Path(folder)


def _fetch_large(transfers: list[FileTransfer], count: _ByteCount, stop: threading.Event) -> None:
    workers = ThreadPoolExecutor(_MAX_AT_ONCE, thread_name_prefix="periscope-pull")
    may_wait = True
    try:
        _watch({workers.submit(transfer.run) for transfer in transfers}, count)
    except KeyboardInterrupt:
        may_wait = False  # a read may hang until its timeout; the process is about to end
        raise
    finally:
        stop.set()
        workers.shutdown(wait=may_wait, cancel_futures=True)


def _watch(running: set[Future[None]], count: _ByteCount) -> None:
    """Tell progress until all are done, or the first has failed."""
    while running:
        done, running = wait(running, timeout=_PROGRESS_INTERVAL_S, return_when=FIRST_EXCEPTION)
        count.tell(PullStatus.DOWNLOADING)
        for each in done:
            each.result()
