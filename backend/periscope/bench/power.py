"""Energy of the whole machine, by macOS's `powermetrics`, which needs root. Event loop."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from periscope.bench.child import Child, child

_SAMPLE_MS = 100
_COMMAND = "powermetrics"
#: Each sample has its length, then the mean power of CPU, GPU and neural engine together.
_ARGUMENTS = ("--samplers", "cpu_power,gpu_power", "--sample-interval", str(_SAMPLE_MS), "--buffer-size", "1")
_SAMPLE = re.compile(rb"\(([\d.]+)ms elapsed\)|^Combined Power \(.*\): ([\d.]+) mW")


class PowerMeter:
    """Owns the energy that was measured so far, in joules. `missing`: why nothing is measured; None = it is."""

    def __init__(self, missing: str | None = None) -> None:
        self.missing = missing
        self._elapsed_s = 0.0
        self._joules: float | None = None

    @property
    def joules(self) -> float | None:
        """Energy since the beginning, to the last sample; None before the first."""
        return self._joules

    def feed(self, line: bytes) -> None:
        """Read one line of powermetrics."""
        found = _SAMPLE.search(line)
        if found is None:
            return
        elapsed_ms, power_mw = found.groups()
        if elapsed_ms is not None:
            self._elapsed_s = float(elapsed_ms) / 1e3
        else:
            self._joules = (self._joules or 0.0) + float(power_mw) / 1e3 * self._elapsed_s

    async def read(self, meter: Child) -> None:
        """Read until powermetrics ends."""
        async for line in meter.lines():
            self.feed(line)


def powermetrics(platform: str = sys.platform) -> tuple[str, ...] | str | None:
    """The command that measures; a sentence if it cannot be used here; None on systems that do not have it."""
    if platform != "darwin":
        return None
    program = shutil.which(_COMMAND)
    if program is None:
        return f"Energy is not measured: there is no {_COMMAND}."
    if os.geteuid() != 0:
        return f"Energy is not measured: {_COMMAND} needs root (sudo)."
    return (program, *_ARGUMENTS)


@asynccontextmanager
async def metered(command: Sequence[str] | str | None) -> AsyncIterator[PowerMeter]:
    """A meter that measures inside the context.

    Args:
        command: see `powermetrics`.
    """
    if command is None or isinstance(command, str):
        yield PowerMeter(command)
        return
    async with child(command) as process:
        meter = PowerMeter()
        reading = asyncio.create_task(meter.read(process))
        try:
            yield meter
        finally:
            reading.cancel()
