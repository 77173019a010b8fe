"""Energy, as macOS's powermetrics tells it."""

from __future__ import annotations

import asyncio
import sys

import pytest

from periscope.bench.power import PowerMeter, metered, powermetrics

#: Two samples, as powermetrics of macOS 26 prints them, and the beginning of a third.
SAMPLES = b"""\
*** Sampled system activity (Fri Sep 11 13:41:46 2026 -0700) (100.00ms elapsed) ***

**** Processor usage ****

E-Cluster HW active frequency: 1145 MHz
CPU Power: 823 mW
GPU Power: 26 mW
ANE Power: 323 mW
Combined Power (CPU + GPU + ANE): 1172 mW

**** GPU usage ****

GPU Power: 26 mW

*** Sampled system activity (Fri Sep 11 13:41:47 2026 -0700) (200.00ms elapsed) ***
Combined Power (CPU + GPU + ANE): 2000 mW
*** Sampled system activity (Fri Sep 11 13:41:48 2026 -0700) (100.00ms elapsed) ***
"""


def test_energy_is_the_power_of_each_sample_by_its_length() -> None:
    """In joules; nothing before the first sample, nothing of one that is not complete."""
    meter = PowerMeter()
    assert meter.joules is None
    for line in SAMPLES.splitlines():
        meter.feed(line)
    assert meter.joules == pytest.approx(0.1172 + 0.4)


def test_a_program_is_read_as_long_as_it_measures() -> None:
    """What it has told counts at once; it ends with the context."""
    program = (
        f"import sys, threading; sys.stdout.write({SAMPLES.decode()!r}); sys.stdout.flush(); threading.Event().wait()"
    )

    async def run() -> float:
        async with metered((sys.executable, "-c", program)) as meter:
            while meter.joules is None or meter.joules < 0.5:
                await asyncio.sleep(0.001)
            return meter.joules

    assert asyncio.run(run()) == pytest.approx(0.5172)


def test_without_the_means_there_is_no_energy_but_a_word() -> None:
    """On a Mac the reason is told; elsewhere there is nothing to tell."""

    async def missing(command: str | None) -> tuple[float | None, str | None]:
        async with metered(command) as meter:
            return meter.joules, meter.missing

    assert asyncio.run(missing("Energy is not measured: why.")) == (None, "Energy is not measured: why.")
    assert asyncio.run(missing(None)) == (None, None)
    assert powermetrics("linux") is None
    told = powermetrics("darwin")
    assert isinstance(told, tuple) or str(told).startswith("Energy is not measured: ")
