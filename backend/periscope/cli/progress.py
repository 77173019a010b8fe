"""What a person sees while models load: bars on a terminal, lines elsewhere. Fed by the runtime's event bus."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from periscope.core.amounts import size
from periscope.events import ModelLoadProgress, ModelStateChanged

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

    from periscope.events import Event, EventBus, Subscription

#: A line is told each time this much more of a model is read.
_STEP_PERCENT = 25


class Display(Protocol):
    """Shows events as they come; `close` leaves the terminal as it was."""

    def show(self, event: Event) -> None:
        """Show what one event changes."""
        ...

    def close(self) -> None:
        """Stop drawing and leave the terminal as it was. Idempotent."""
        ...


class Tell(Protocol):
    """Takes one line for a person."""

    def __call__(self, line: str, *, is_failure: bool) -> None:
        """`is_failure`: it says why a model is of no use now."""
        ...


class LoadingLines:
    """Owns what was told of each model so far: one line per state change and per quarter loaded."""

    def __init__(self, tell: Tell, clock: Callable[[], float] = time.monotonic) -> None:
        self._tell = tell
        self._clock = clock
        self._started_at: dict[str, float] = {}
        self._told_percent: dict[str, int] = {}

    def show(self, event: Event) -> None:
        """Tells at most one line."""
        match event:
            case ModelStateChanged():
                self._tell(self._state(event), is_failure=event.reason is not None)
            case ModelLoadProgress(model, done, total) if total > 0:
                percent = done * 100 // total // _STEP_PERCENT * _STEP_PERCENT
                if self._told_percent.get(model, 0) < percent < 100:  # "ready" follows the last byte
                    self._told_percent[model] = percent
                    self._tell(f"model {model}: {percent} % of {size(total)}", is_failure=False)

    def close(self) -> None:
        """Nothing is left open."""

    def _state(self, event: ModelStateChanged) -> str:
        if event.new == "loading":
            self._started_at[event.model] = self._clock()
            self._told_percent.pop(event.model, None)
        text = f"model {event.model}: {event.new}"
        if event.new == "ready" and (started_at := self._started_at.pop(event.model, None)) is not None:
            text += f" after {self._clock() - started_at:.1f} s"
        return f"{text}: {event.reason}" if event.reason else text


class LoadingBars:
    """Owns one bar for each model that loads, on a terminal, with `LoadingLines` above; no bar stays behind."""

    def __init__(self, console: Console, lines: LoadingLines) -> None:
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._lines = lines
        self._bars: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Moves a bar; a state change also gives its line."""
        match event:
            case ModelStateChanged(model, _, new):
                self._lines.show(event)
                self._loads(model) if new == "loading" else self._ended(model)
            case ModelLoadProgress(model, done, total) if model in self._bars:
                self._progress.update(self._bars[model], completed=done, total=total, refresh=True)

    def close(self) -> None:
        """The bars go, and the cursor is back."""
        for model in list(self._bars):
            self._ended(model)

    def _loads(self, model: str) -> None:
        self._bars[model] = self._progress.add_task(model, total=None)
        self._progress.start()

    def _ended(self, model: str) -> None:
        if (bar := self._bars.pop(model, None)) is not None:
            self._progress.remove_task(bar)
        if not self._bars:
            self._progress.stop()


def stderr_console() -> Console | None:
    """What draws on the terminal; None if stderr is none: then nothing is drawn, and what draws is not imported."""
    if not sys.stderr.isatty():
        return None
    from rich.console import Console

    return Console(stderr=True)


def print_line(console: Console | None, line: str) -> None:
    """The line as it is (no markup, no wrapping), above the bars if there are any; None = on stderr. Any thread."""
    if console is None:
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()
        return
    console.print(line, markup=False, highlight=False, emoji=False, soft_wrap=True)


def display_on(console: Console | None, tell: Tell) -> Display:
    """Bars on a terminal that can move its cursor, else lines alone."""
    lines = LoadingLines(tell)
    if console is not None and sys.stderr.isatty() and not console.is_dumb_terminal:
        return LoadingBars(console, lines)
    return lines


@asynccontextmanager
async def shown(bus: EventBus, display: Display) -> AsyncIterator[None]:
    """Inside, what the bus tells of models is shown; at the end, what is still queued is shown too."""
    with bus.subscribed(ModelStateChanged, ModelLoadProgress) as events:
        showing = asyncio.create_task(_show(events, display), name="show progress")
        try:
            yield
        finally:
            events.end()
            await showing


async def _show(events: Subscription, display: Display) -> None:
    try:
        async for event in events:
            display.show(event)
    finally:
        display.close()
