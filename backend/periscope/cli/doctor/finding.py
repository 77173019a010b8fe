"""What the doctor has to say of one thing. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """`WARNING`: it works, but not as well as it could. `FAILURE`: a server would not work. `SKIPPED`: not here."""

    OK = "ok"
    WARNING = "warning"
    FAILURE = "failure"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        said: what was found, for a person.
        fix: what to do about it; None where nothing is to be done.
    """

    check: str
    level: Level
    said: str
    fix: str | None = None
