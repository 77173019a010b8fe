"""One download of a model, its states, and the file in which unfinished ones survive a restart."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path


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
        """It goes on by itself."""
        return self in {DownloadState.QUEUED, DownloadState.DOWNLOADING}

    @property
    def is_kept(self) -> bool:
        """It survives a restart: it goes on then, or can be resumed."""
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


@dataclass(frozen=True, slots=True)
class SavedJob:
    """What is kept of an unfinished download."""

    id: str
    hub_id: str
    revision: str | None
    created_at: float
    is_paused: bool


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
