"""Starts that are measured."""

from __future__ import annotations

import asyncio
import io

from rich.console import Console

from periscope.bench.report import print_starts
from periscope.bench.start import StartSettings, bench_start


def test_a_start_is_measured_in_the_order_in_which_it_happens() -> None:
    """It listens, answers, and is ready; the round that warms up is left out, and the memory is that of the server."""
    told: list[str] = []
    report = asyncio.run(bench_start(StartSettings(rounds=1, idle_s=0.0), told.append))
    assert told == ["warming up", "round 1 of 1"]
    (sample,) = report.samples
    assert 0 < sample.listening_s < min(sample.answering_s, sample.ready_s)
    assert sample.cpu_s is not None
    assert sample.memory_bytes is not None
    assert sample.memory_bytes > 50 * 2**20
    assert report.figures[0].metric == "listening_s"
    assert all(figure.value is not None for figure in report.figures)
    console = Console(record=True, file=io.StringIO(), width=180)
    print_starts(report, console)
    assert "1 start with" in console.export_text()
