"""`periscope logs`: the end of the server's log, and what is added to it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.exits import CommandFailed, ExitCode, exits
from periscope.cli.options import ConfigFile, Json, load_config, print_json

if TYPE_CHECKING:
    from periscope.config import Config


@exits()
def logs(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="How many of the last lines.")] = 50,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print the end of the server's log; `service logs` has what launchd kept of the agent."""
    from periscope.service import Follower, last_lines, this_machine

    if follow and as_json:
        raise CommandFailed("--follow prints text as it comes: leave out --json.", ExitCode.USAGE)
    file = _log_of(load_config(config))
    follower = Follower([file])
    last = last_lines(file, lines)
    if as_json:
        print_json({"path": str(file), "lines": last})
        return
    for line in last:
        typer.echo(line)
    if follow:
        for text in follower.follow(this_machine().clock):
            sys.stdout.write(text)
            sys.stdout.flush()


def _log_of(config: Config) -> Path:
    """The running server's log, else that of the last one.

    Raises:
        CommandFailed: there is none.
    """
    from periscope.service import LOG_NAME, StateFolder, read_server

    running = read_server(StateFolder(config.places.state))
    if running is not None and running.log_path is None:
        raise CommandFailed(f"The server at {running.url} writes no log file: its log is where it was started.")
    file = config.places.logs / LOG_NAME if running is None or running.log_path is None else Path(running.log_path)
    if not file.exists():
        raise CommandFailed(
            f"There is no log at {file}: no server has run yet. One that launchd started leaves its first lines in "
            "`periscope service logs`."
        )
    return file
