"""What is read of the machine at one moment. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class MemoryPressure(StrEnum):
    """How short of memory the whole machine is, as the system says."""

    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"


class ThermalState(StrEnum):
    """How hot the machine is. From `HEAVY` on the system slows processors noticeably."""

    NOMINAL = "nominal"
    MODERATE = "moderate"
    HEAVY = "heavy"
    TRAPPING = "trapping"
    SLEEPING = "sleeping"

    @property
    def is_hot(self) -> bool:
        """The system slows the machine down, or is about to stop it."""
        return self not in {ThermalState.NOMINAL, ThermalState.MODERATE}


@dataclass(frozen=True, slots=True)
class HostReading:
    """One reading. None = this system does not say.

    Attributes:
        footprint_bytes: memory that the system counts against this process, compressed and swapped parts among it.
    """

    pressure: MemoryPressure | None = None
    thermal: ThermalState | None = None
    footprint_bytes: int | None = None


class Sensors(Protocol):
    """Reads memory pressure, heat and what this process takes from the system."""

    def read(self) -> HostReading:
        """Takes microseconds and never raises."""
        ...
