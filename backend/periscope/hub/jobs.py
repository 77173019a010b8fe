"""One download of a model, its states, and the file in which unfinished ones survive a restart."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path

from periscope.errors import DownloadConflict
from periscope.hub.download import PullProgress, PullStatus
from periscope.status import DownloadStatus


class DownloadState(StrEnum):
    """`PAUSED` and `FAILED` keep what has arrived; a cancelled one has been deleted, but for whole files."""

    QUEUED = "queued"
    DOWNLOADING = "downloading"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_active(self) -> bool:
        """Whether the download goes on by itself."""
        return self in {DownloadState.QUEUED, DownloadState.DOWNLOADING}

    @property
    def is_kept(self) -> bool:
        """Whether it survives a restart: then it goes on, or can be resumed."""
        return self not in {DownloadState.COMPLETED, DownloadState.CANCELLED}


#: For each state, those that may follow it.
TRANSITIONS: dict[DownloadState, frozenset[DownloadState]] = {
    DownloadState.QUEUED: frozenset({DownloadState.DOWNLOADING, DownloadState.PAUSED, DownloadState.CANCELLED}),
    DownloadState.DOWNLOADING: frozenset(
        {
            DownloadState.COMPLETED,
            DownloadState.FAILED,
            DownloadState.PAUSED,
            DownloadState.CANCELLED,
        }
    ),
    DownloadState.PAUSED: frozenset({DownloadState.QUEUED, DownloadState.CANCELLED}),
    DownloadState.FAILED: frozenset({DownloadState.QUEUED, DownloadState.CANCELLED}),
    DownloadState.COMPLETED: frozenset(),
    DownloadState.CANCELLED: frozenset(),
}
#: What is asked for when a download is to be in this state.
_ASKED = {DownloadState.QUEUED: "resumed", DownloadState.PAUSED: "paused", DownloadState.CANCELLED: "cancelled"}
#: Weight of the newest interval in the rate.
_NEWEST_WEIGHT = 0.3
#: Without a new byte for so long, nobody knows how fast it is.
_STALE_S = 5.0


@dataclass(frozen=True, slots=True)
class SavedJob:
    """What is kept of an unfinished download.

    Attributes:
        error: why it failed; None if it did not.
    """

    id: str
    hub_id: str
    revision: str | None
    created_at: float
    is_paused: bool
    error: str | None = None

    @property
    def state(self) -> DownloadState:
        """What it is when it is taken up again."""
        if self.error is not None:
            return DownloadState.FAILED
        return DownloadState.PAUSED if self.is_paused else DownloadState.QUEUED


@dataclass(slots=True, eq=False)
class Download:
    """Owns how far one download has come.

    Attributes:
        stop: set = its thread gives up at the next piece.
        ends_as: what it becomes when its thread has given up.
    """

    id: str
    hub_id: str
    revision: str | None
    created_at: float
    state: DownloadState = DownloadState.QUEUED
    progress: PullProgress | None = None
    error: str | None = None
    bytes_per_s: float | None = None
    measured_at: float = 0.0
    told_at: float = -math.inf
    stop: threading.Event = field(default_factory=threading.Event)
    ends_as: DownloadState | None = None

    def go(self, state: DownloadState) -> None:
        """Go to another state, without an error.

        Raises:
            DownloadConflict: the table of transitions does not have it.
        """
        if state not in TRANSITIONS[self.state]:
            raise DownloadConflict(f"The download of {self.hub_id} is {self.state}, so it cannot be {_ASKED[state]}.")
        self.state, self.error = state, None

    def note(self, progress: PullProgress, now: float) -> None:
        """Take over how far the pull is, and measure how fast it goes. `now` is in seconds of any clock."""
        before, elapsed_s = self.progress, now - self.measured_at
        self.progress, self.measured_at = progress, now
        if before is not None and before.total_bytes and elapsed_s > 0:
            rate = (progress.completed_bytes - before.completed_bytes) / elapsed_s
            mean = rate if self.bytes_per_s is None else self.bytes_per_s
            self.bytes_per_s = mean + _NEWEST_WEIGHT * (rate - mean)

    def saved(self) -> SavedJob:
        """What is kept of it over a restart."""
        is_paused = not self.state.is_active
        return SavedJob(self.id, self.hub_id, self.revision, self.created_at, is_paused=is_paused, error=self.error)

    def status(self, now: float) -> DownloadStatus:
        """The download as watchers see it now."""
        progress = self.progress or PullProgress(self.hub_id, PullStatus.PLANNING)
        left, rate = progress.total_bytes - progress.completed_bytes, self.bytes_per_s
        is_measured = self.state is DownloadState.DOWNLOADING and now - self.measured_at < _STALE_S
        is_moving = is_measured and rate is not None and rate > 0
        return DownloadStatus(
            id=self.id,
            model=self.hub_id,
            revision=self.revision,
            state=self.state,
            total_bytes=progress.total_bytes or None,
            completed_bytes=progress.completed_bytes,
            bytes_per_s=rate if is_moving else None,
            eta_s=left / rate if is_moving and rate else None,
            warning=progress.oddity,
            error=self.error,
            created_at=self.created_at,
        )


class JobFile:
    """Owns the file of unfinished downloads. Its methods may block."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self) -> list[SavedJob]:
        """The downloads, in their order; none if the file is missing or damaged: a pull can be asked for again."""
        try:
            rows = json.loads(self._path.read_text(encoding="utf-8"))
            return [SavedJob(**row) for row in rows]
        except (OSError, ValueError, TypeError):
            return []

    def write(self, jobs: Iterable[SavedJob]) -> None:
        """Replace the whole file.

        Raises:
            OSError: it cannot be written.
        """
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_name(f"{self._path.name}.new")
        new.write_text(json.dumps([asdict(job) for job in jobs], indent=2) + "\n", encoding="utf-8")
        new.replace(self._path)
