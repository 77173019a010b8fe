"""HostWatch looks at the machine every few seconds and tells its listener what is to be done. Event loop only.

The system's sleep is seen by its clocks: the monotonic one stands still meanwhile (`mach_absolute_time`, Linux's
`CLOCK_MONOTONIC`), the wall clock does not. So nothing that counts in monotonic time runs out while the machine sleeps.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from periscope.host.awake import KeepAwake
from periscope.host.readings import HostReading, MemoryPressure, Sensors

logger = logging.getLogger(__name__)

#: Far below the minute after which a Mac sleeps at the earliest, and what a reading costs is not felt.
INTERVAL_S = 5.0
#: A wall clock that jumps by less was set right, or the loop was busy.
MIN_SLEEP_S = 10.0


@dataclass(frozen=True, slots=True)
class Clocks:
    """The wall clock and the monotonic one, in seconds."""

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic


class HostListener(Protocol):
    """What acts on the machine's state. None of the methods blocks."""

    def is_busy(self) -> bool:
        """There is work for which the machine should stay awake."""
        ...

    def relieve_memory(self) -> None:
        """Memory pressure is critical; called at each look, until it is not."""
        ...

    def memory_is_critical(self, *, is_critical: bool) -> None:
        """Pressure became critical, or is so no longer."""
        ...

    def heat_changed(self, reading: HostReading) -> None:
        """The thermal state is another one."""
        ...

    def woke(self, slept_s: float) -> None:
        """The machine has slept for about so long."""
        ...


class HostWatch:
    """Owns the last reading and the clocks' last times."""

    def __init__(
        self, sensors: Sensors, awake: KeepAwake, listener: HostListener, *, clocks: Clocks = Clocks()
    ) -> None:
        self._sensors = sensors
        self._awake = awake
        self._listener = listener
        self._clocks = clocks
        self._last = HostReading()
        self._wall_at, self._monotonic_at = clocks.wall(), clocks.monotonic()

    @property
    def is_kept_awake(self) -> bool:
        """The machine is kept from sleeping now."""
        return self._awake.is_active

    def reading(self) -> HostReading:
        """Read the sensors now."""
        return self._sensors.read()

    async def run(self) -> None:
        """Look again and again, until cancelled; then the machine may sleep."""
        try:
            while True:
                self.look()
                await asyncio.sleep(INTERVAL_S)
        finally:
            self._awake.end()

    def look(self) -> None:
        """One look: sleep, pressure, heat, and whether there is work."""
        slept_s = self._slept_s()
        if slept_s >= MIN_SLEEP_S:
            logger.info("the machine has slept for %.0f s", slept_s)
            self._listener.woke(slept_s)
        last, self._last = self._last, self.reading()
        is_critical = self._last.pressure is MemoryPressure.CRITICAL
        if is_critical != (last.pressure is MemoryPressure.CRITICAL):
            self._listener.memory_is_critical(is_critical=is_critical)
        if is_critical:
            self._listener.relieve_memory()
        if self._last.thermal is not last.thermal:
            self._listener.heat_changed(self._last)
        self._awake.update(is_busy=self._listener.is_busy())

    def _slept_s(self) -> float:
        """How much further the wall clock went than the monotonic one since the last look."""
        wall, monotonic = self._clocks.wall(), self._clocks.monotonic()
        slept_s = (wall - self._wall_at) - (monotonic - self._monotonic_at)
        self._wall_at, self._monotonic_at = wall, monotonic
        return slept_s
