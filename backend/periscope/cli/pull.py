"""`periscope pull`: a model from the hub into the cache on this disk, with progress, going on where it stopped."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.exits import ExitCode, complain, end_process_after, exits
from periscope.cli.options import SCHEMA_VERSION, ConfigFile, ModelName, load_config
from periscope.core.amounts import size

if TYPE_CHECKING:
    from rich.console import Console

    from periscope.hub import PullProgress

#: A line is told each time this much more of a model is here.
_STEP_PERCENT = 10
#: A transfer that hears nothing from the hub is not waited for longer than this after Ctrl-C.
_STOP_GRACE_S = 0.5


@exits()
def pull(
    model: ModelName,
    *,
    revision: Annotated[
        str | None, typer.Option(help="Branch, tag or commit; the one in models.yaml or `main` if left out.")
    ] = None,
    only: Annotated[bool, typer.Option("--only", help="Without the model's captioner and draft model.")] = False,
    config: ConfigFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print progress as JSON, one object a line.")] = False,
) -> None:
    """Fetch a model, and the captioner that goes with it, from the Hugging Face hub; again to go on or to update."""
    from rich.console import Console

    from periscope import hub
    from periscope.config.named import find_named, with_companions

    loaded = load_config(config)
    asked = find_named(loaded, model)
    if revision is not None and asked.hub_id is not None:
        asked = replace(asked, revision=revision)
    console = Console(stderr=True)
    for each in (asked,) if only else with_companions(loaded, asked):
        if each.hub_id is None:
            complain(f"{each.why_kept}: there is nothing to fetch.")
            continue
        display = PullJSON() if as_json else display_on(console)
        try:
            folder = hub.pull(each.hub_id, each.revision, on_progress=display.show)
        except KeyboardInterrupt:
            complain(f"Stopped. `periscope pull {model}` goes on where it ended.")
            end_process_after(_STOP_GRACE_S, ExitCode.INTERRUPTED)
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        finally:
            display.close()
        if not as_json:
            typer.echo(f"{each.hub_id}: {folder}")


class PullLines:
    """Owns what was told of one pull: what there is to fetch, a line for each tenth, and its end."""

    def __init__(self) -> None:
        self._told_percent = -1
        self._warned = False

    def show(self, progress: PullProgress) -> None:
        """At most one line, and once the warning that it may be no model for MLX."""
        if progress.oddity and not self._warned:
            self._warned = True
            complain(f"Warning: {progress.oddity}")
        if progress.status == "planning":
            complain(f"{progress.hub_id}: asking the hub")
        elif progress.status == "done":
            complain(f"{progress.hub_id}: complete, {size(progress.total_bytes)}")
        else:
            self._tell_step(progress)

    def close(self) -> None:
        """Nothing is left open."""

    def _tell_step(self, progress: PullProgress) -> None:
        done, total = progress.completed_bytes, progress.total_bytes
        percent = done * 100 // max(total, 1) // _STEP_PERCENT * _STEP_PERCENT
        if self._told_percent < percent < 100:  # "complete" follows the last byte
            self._told_percent = percent
            complain(f"{progress.hub_id}: {size(done)} of {size(total)}")


class PullBar:
    """Owns one bar on a terminal; it stays when the pull is over."""

    def __init__(self, console: Console) -> None:
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )

        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("", total=None)
        self._has_started = False

    def show(self, progress: PullProgress) -> None:
        """Moves the bar. What was here before does not count as speed."""
        if progress.total_bytes and not self._has_started:
            self._has_started = True
            self._progress.reset(self._bar, completed=progress.completed_bytes, total=progress.total_bytes)
            if progress.oddity:
                self._progress.console.print(f"Warning: {progress.oddity}", markup=False, highlight=False)
        self._progress.start()
        self._progress.update(
            self._bar,
            description=progress.hub_id,
            completed=progress.completed_bytes,
            total=progress.total_bytes or None,
            refresh=True,
        )

    def close(self) -> None:
        """The cursor is back."""
        self._progress.stop()


class PullJSON:
    """Owns nothing; one object a line on stdout for every change."""

    def show(self, progress: PullProgress) -> None:
        """Print one line and flush it."""
        told = {
            "schema_version": SCHEMA_VERSION,
            "status": progress.status,
            "model": progress.hub_id,
            "total": progress.total_bytes,
            "completed": progress.completed_bytes,
        }
        typer.echo(json.dumps(told | ({"warning": progress.oddity} if progress.oddity else {})))

    def close(self) -> None:
        """Nothing is left open."""


def display_on(console: Console) -> PullBar | PullLines:
    """A bar when stderr is a terminal that can move its cursor, else lines."""
    return PullBar(console) if sys.stderr.isatty() and not console.is_dumb_terminal else PullLines()
