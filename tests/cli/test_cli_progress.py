"""What is shown while models load."""

from __future__ import annotations

import asyncio
import io

from rich.console import Console

from periscope.cli.progress import LoadingBars, LoadingLines, display_on, shown
from periscope.events import Event, EventBus, ModelLoadProgress, ModelStateChanged


class Told:
    """Owns the lines a display told, and a clock that moves a second with each look."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failures: list[str] = []
        self._now = 0.0

    def __call__(self, line: str, *, is_failure: bool) -> None:
        (self.failures if is_failure else self.lines).append(line)

    def clock(self) -> float:
        self._now += 1
        return self._now


def changed(new: str, reason: str | None = None) -> ModelStateChanged:
    return ModelStateChanged("m", "?", new, reason)


def test_a_load_is_told_by_state_and_quarter() -> None:
    """One line per state change and per 25 %, however many events come between."""
    told = Told()
    lines = LoadingLines(told, told.clock)
    events: list[Event] = [changed("loading")]
    events += [ModelLoadProgress("m", done * 10**7, 10**9) for done in range(101)]
    for event in [*events, changed("ready")]:
        lines.show(event)
    assert told.lines == [
        "model m: loading",
        "model m: 25 % of 1.0 GB",
        "model m: 50 % of 1.0 GB",
        "model m: 75 % of 1.0 GB",
        "model m: ready after 1.0 s",
    ]


def test_a_second_load_is_told_again() -> None:
    """Quarters of an earlier load do not hide those of the next."""
    told = Told()
    lines = LoadingLines(told, told.clock)
    for _ in range(2):
        for event in (changed("loading"), ModelLoadProgress("m", 1, 2), changed("unloaded")):
            lines.show(event)
    assert told.lines.count("model m: 50 % of 2 B") == 2


def test_a_failure_comes_with_its_reason() -> None:
    """The sentence that says why, and what to do, is in the line, which is marked as a failure."""
    told = Told()
    LoadingLines(told).show(changed("failed", "There is no folder /x."))
    assert told.failures == ["model m: failed: There is no folder /x."]


def test_bars_are_gone_when_the_models_are_loaded() -> None:
    """On a terminal each loading model has a bar; afterwards only the lines stay and the cursor is back."""
    told, screen = Told(), io.StringIO()
    bars = LoadingBars(Console(file=screen, force_terminal=True, width=80), LoadingLines(told, told.clock))
    for event in (changed("loading"), ModelLoadProgress("m", 10**6, 2 * 10**6), changed("ready")):
        bars.show(event)
    bars.close()
    assert "1.0/2.0 MB" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[2K\x1b[?25h\r")  # the line is cleared, the cursor shown
    assert told.lines == ["model m: loading", "model m: ready after 1.0 s"]


def test_no_terminal_no_bars() -> None:
    """Where stderr is no terminal (as under pytest), lines are all there is."""
    assert isinstance(display_on(Console(stderr=True), Told()), LoadingLines)


def test_what_is_queued_at_the_end_is_still_shown() -> None:
    """Leaving the block loses no event that was published inside it."""
    told = Told()

    async def run() -> None:
        bus = EventBus()
        async with shown(bus, LoadingLines(told)):
            bus.publish(changed("loading"))
            bus.publish(changed("failed", "why"))

    asyncio.run(run())
    assert (told.lines, told.failures) == (["model m: loading"], ["model m: failed: why"])
