"""Downloads: models that a running server fetches by command, one after the other. Event loop only.

Each pull runs on a thread of its own and is the same as that of `periscope pull`; both may run at once, because a file
is locked while it is fetched.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from periscope.errors import DownloadNotFound, PeriscopeError, ServerBusy
from periscope.events import DownloadChanged, Event
from periscope.hub.cache import discard_partial
from periscope.hub.download import OnProgress, PullProgress, PullStatus, pull
from periscope.hub.jobs import Download, DownloadState, JobFile
from periscope.hub.plan import Hub
from periscope.hub.transfer import PullStopped
from periscope.status import DownloadStatus

logger = logging.getLogger(__name__)

#: Unfinished downloads at once. Each costs a row in every snapshot.
MAX_UNFINISHED = 32
#: Ended ones that are still listed; the oldest go first.
MAX_ENDED = 32
#: Watchers are told of progress at most this often.
_TELL_EVERY_S = 0.5
_RETRY_AFTER_S = 60


class Pull(Protocol):
    """Fetches a model and blocks until it is there; as `periscope.hub.pull`."""

    def __call__(
        self, hub_id: str, revision: str | None, /, *, on_progress: OnProgress, hub: Hub, stop: threading.Event
    ) -> Path: ...


class Downloads:
    """Owns the list of downloads, the one thread that fetches, and the file in which unfinished ones survive.

    Args:
        file: None = they are forgotten when the server stops; what has arrived stays in the cache all the same.
    """

    def __init__(
        self,
        publish: Callable[[Event], None],
        *,
        file: JobFile | None = None,
        hub: Hub = Hub(),
        fetch: Pull = pull,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._publish = publish
        self._file = file
        self._hub = hub
        self._fetch = fetch
        self._clock = clock
        self._all: dict[str, Download] = {}
        self._running: asyncio.Task[None] | None = None
        self._saving = asyncio.Lock()
        self._work: set[asyncio.Task[None]] = set()
        self._is_stopping = False

    # --- looking ---------------------------------------------------------------------------------------------------

    @property
    def is_active(self) -> bool:
        """Something is fetched, or waits to be."""
        return any(each.state.is_active for each in self._all.values())

    def all(self) -> tuple[DownloadStatus, ...]:
        """All downloads that are remembered, the oldest first."""
        return tuple(each.status(self._clock()) for each in self._all.values())

    def status(self, download_id: str) -> DownloadStatus:
        """One download as it is now, by its id.

        Raises:
            DownloadNotFound: there is none of this id.
        """
        return self._find(download_id).status(self._clock())

    # --- commands --------------------------------------------------------------------------------------------------

    async def restore(self) -> None:
        """Take up what an earlier server left unfinished; to be called once, before anything else."""
        if self._file is None:
            return
        for job in await asyncio.to_thread(self._file.read):
            taken_up = Download(job.id, job.hub_id, job.revision, job.created_at, job.state, error=job.error)
            self._all[job.id] = taken_up
        self._go_on()

    def start(self, hub_id: str, revision: str | None) -> DownloadStatus:
        """Fetch a model. One that is being fetched already is joined; one that was paused or failed goes on.

        Raises:
            ServerBusy: too many are unfinished.
        """
        for each in self._all.values():
            if (each.hub_id, each.revision) == (hub_id, revision) and each.state.is_kept:
                is_going_on = each.state.is_active and each.ends_as is None
                return each.status(self._clock()) if is_going_on else self.resume(each.id)
        if sum(each.state.is_kept for each in self._all.values()) >= MAX_UNFINISHED:
            raise ServerBusy(
                f"{MAX_UNFINISHED} downloads are unfinished, which is the limit. Cancel one, or wait for one to end.",
                retry_after_s=_RETRY_AFTER_S,
            )
        download = Download(f"dl-{uuid4().hex[:12]}", hub_id, revision, time.time())
        self._all[download.id] = download
        self._changed(download)
        return download.status(self._clock())

    def resume(self, download_id: str) -> DownloadStatus:
        """Go on with one that was paused or has failed.

        Raises:
            DownloadNotFound, DownloadConflict: there is none of this id; it has ended otherwise, or goes on already.
        """
        download = self._find(download_id)
        if download.ends_as is not None:  # its thread has not given up yet
            download.ends_as = DownloadState.QUEUED
        else:
            download.go(DownloadState.QUEUED)
            self._changed(download)
        return download.status(self._clock())

    def pause(self, download_id: str) -> DownloadStatus:
        """Stop one for now; what has arrived stays. Raises as `resume`."""
        return self._stop(download_id, DownloadState.PAUSED)

    def cancel(self, download_id: str) -> DownloadStatus:
        """Stop one for good and delete the parts of files that have arrived. Raises as `resume`."""
        return self._stop(download_id, DownloadState.CANCELLED)

    async def close(self) -> None:
        """Stop fetching; unfinished downloads go on with the next server. Idempotent.

        The thread that fetches is not waited for: a read that hears nothing ends by its timeout.
        """
        self._is_stopping = True
        for each in self._all.values():
            each.stop.set()
        tasks = {*self._work, *([] if self._running is None else [self._running])}
        if self._running is not None:
            self._running.cancel()
        if tasks:
            await asyncio.wait(tasks)

    # --- work ------------------------------------------------------------------------------------------------------

    def _find(self, download_id: str) -> Download:
        if (download := self._all.get(download_id)) is None:
            raise DownloadNotFound(
                f"There is no download {download_id[:128]!r}; GET /api/downloads lists those there are.", param="id"
            )
        return download

    def _stop(self, download_id: str, state: DownloadState) -> DownloadStatus:
        """One that is being fetched takes its new state when its thread has given up, within a piece or a timeout."""
        download = self._find(download_id)
        if download.state is DownloadState.DOWNLOADING:
            download.ends_as = state
            download.stop.set()
        else:
            download.go(state)
            if state is DownloadState.CANCELLED:
                self._discard(download)
            self._changed(download)
        return download.status(self._clock())

    def _changed(self, download: Download) -> None:
        """A download is in another state: tell it, keep it, and go on with the next."""
        ended = [each.id for each in self._all.values() if not each.state.is_kept]
        for download_id in ended[:-MAX_ENDED]:
            del self._all[download_id]
        reason = f" ({download.error})" if download.error else ""
        logger.info("download of %s: %s%s", download.hub_id, download.state, reason)
        self._publish(DownloadChanged(download.id))
        self._do(self._save())
        self._go_on()

    def _go_on(self) -> None:
        if self._running is not None or self._is_stopping:
            return
        waiting = (each for each in self._all.values() if each.state is DownloadState.QUEUED)
        if (download := next(waiting, None)) is not None:
            download.go(DownloadState.DOWNLOADING)
            download.stop = threading.Event()
            self._running = asyncio.create_task(self._run(download), name=f"download {download.hub_id}")
            self._publish(DownloadChanged(download.id))

    async def _run(self, download: Download) -> None:
        download.bytes_per_s, download.measured_at = None, self._clock()
        try:
            state, error = await self._fetched(download)
        finally:
            self._running = None
        ends_as, download.ends_as = download.ends_as, None
        if ends_as is not None and state is not DownloadState.COMPLETED:  # it failed because it was stopped
            state, error = (DownloadState.PAUSED if ends_as is DownloadState.QUEUED else ends_as), None
        download.go(state)
        download.error = error
        if ends_as is DownloadState.QUEUED and state is DownloadState.PAUSED:
            download.go(DownloadState.QUEUED)
        if state is DownloadState.CANCELLED:
            self._discard(download)
        self._changed(download)

    async def _fetched(self, download: Download) -> tuple[DownloadState, str | None]:
        """What becomes of one pull, and why, if it failed."""
        loop = asyncio.get_running_loop()

        def progressed(progress: PullProgress) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody wants to know any more
                loop.call_soon_threadsafe(self._progressed, download, progress)

        hub_id, revision, stop = download.hub_id, download.revision, download.stop
        try:
            await in_daemon(lambda: self._fetch(hub_id, revision, on_progress=progressed, hub=self._hub, stop=stop))
        except PullStopped:
            return DownloadState.PAUSED, None
        except PeriscopeError as error:
            return DownloadState.FAILED, error.message
        except Exception as error:
            logger.exception("download of %s failed", hub_id)
            return DownloadState.FAILED, f"{type(error).__name__}: {error}"
        return DownloadState.COMPLETED, None

    def _progressed(self, download: Download, progress: PullProgress) -> None:
        if download.progress is not None and progress.status is PullStatus.PLANNING:
            return  # the hub is asked again; what was here is here
        now = self._clock()
        download.note(progress, now)
        if now - download.told_at >= _TELL_EVERY_S:
            download.told_at = now
            self._publish(DownloadChanged(download.id))

    # --- the disk --------------------------------------------------------------------------------------------------

    def _discard(self, download: Download) -> None:
        self._do(asyncio.to_thread(discard_partial, download.hub_id, self._hub))

    async def _save(self) -> None:
        """Write what is unfinished now; writes follow one another."""
        if self._file is None:
            return
        async with self._saving:
            jobs = [each.saved() for each in self._all.values() if each.state.is_kept]
            try:
                await asyncio.to_thread(self._file.write, jobs)
            except OSError as error:
                logger.warning("downloads will not go on after a restart: %s", error)

    def _do(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.create_task(_logged(work), name="keep downloads")
        self._work.add(task)
        task.add_done_callback(self._work.discard)


async def _logged(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except OSError as error:
        logger.warning("the parts of a cancelled download cannot be deleted: %s", error)


async def in_daemon(work: Callable[[], object]) -> None:
    """Run `work`, which may block for hours, on a thread that the end of the process does not wait for.

    Raises:
        Exception: whatever `work` raises.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: BaseException | None) -> None:
        if done.cancelled():
            return
        done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            work()
        except Exception as raised:  # noqa: BLE001 - it is raised where it is awaited
            error = raised
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="periscope-download", daemon=True).start()
    await done
