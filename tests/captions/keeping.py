"""What the tests of kept captions share: entries, and processes that keep captions until they are killed."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

from periscope.captions.caption import Caption
from periscope.captions.file import CaptionFile
from periscope.captions.kept import KeptCaption

TIMEOUT_S = 60.0


def kept(key: str, text: str = "", at: float = 1.0) -> KeptCaption:
    """An entry that was made and used at one time."""
    return KeptCaption(key, Caption(text or f"about {key}", 3, 40), created_at=at, used_at=at)


def loaded(path: Path, max_bytes: int = 2**20) -> dict[str, str]:
    """What a process that starts now finds: key -> text, the least recently used one first."""
    file = CaptionFile.open(path)
    try:
        return {entry.key: entry.caption.text for entry in reversed(file.load(max_bytes))}
    finally:
        file.close()


def wrote(path: Path, *entries: KeptCaption) -> None:
    """A process kept these and ended."""
    file = CaptionFile.open(path)
    file.apply({entry.key: entry for entry in entries})
    file.close()


def query(path: Path, statement: str) -> list[tuple[Any, ...]]:
    """Run one statement beside Periscope, as another program would."""
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement).fetchall()
    finally:
        connection.close()


def started(program: str, *arguments: str) -> subprocess.Popen[str]:
    """A process that runs this program; it writes one line for each thing it has done."""
    return subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
