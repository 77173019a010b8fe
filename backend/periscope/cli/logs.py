"""`periscope logs`: the end of the server's log, and what is added to it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from periscope.cli.exits import CommandFailed, ExitCode, exits
from periscope.cli.options import ConfigFile, Json, Url, load_config, print_json

if TYPE_CHECKING:
    from periscope.cli.client import Server
    from periscope.config import Config
    from periscope.service import Clock

_POLL_S: Final = 1.0
#: At most so many lines are taken at once; the server keeps no more.
_MAX_LINES: Final = 2000


@exits()
def logs(
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is added, until Ctrl-C.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=0, max=_MAX_LINES, help="How many of the last lines.")
    ] = 50,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print the end of the server's log; `service logs` has what launchd kept of the agent."""
    from periscope.service import this_machine

    if follow and as_json:
        raise CommandFailed("--follow prints text as it comes: leave out --json.", ExitCode.USAGE)
    log = _find(url, load_config(config))
    last = log.last(lines)
    if as_json:
        print_json({"source": log.source, "lines": last})
        return
    for line in last:
        typer.echo(line)
    if follow:
        for text in log.added(this_machine().clock):
            sys.stdout.write(text)
            sys.stdout.flush()


class _Log(Protocol):
    """A server's log, wherever it is read."""

    @property
    def source(self) -> str:
        """The file, or the server's address."""
        ...

    def last(self, num_lines: int) -> list[str]:
        """The newest lines, at most so many, the oldest of them first."""
        ...

    def added(self, clock: Clock) -> Iterator[str]:
        """What is added after the last lines, for ever."""
        ...


def _find(url: str | None, config: Config) -> _Log:
    """The server that is named, or writes no file, is asked; else the file of the running server, or of the last one.

    Raises:
        CommandFailed: there is none.
    """
    from periscope.cli.client import require_server
    from periscope.service import LOG_NAME, StateFolder, read_server

    running = read_server(StateFolder(config.places.state))
    if url or os.environ.get("PERISCOPE_URL") or (running is not None and running.log_path is None):
        return _ServerLog(require_server(url, config))
    file = config.places.logs / LOG_NAME if running is None or running.log_path is None else Path(running.log_path)
    if not file.exists():
        raise CommandFailed(
            f"There is no log at {file}: no server has run yet. One that launchd started leaves its first lines in "
            "`periscope service logs`."
        )
    return _FileLog(file)


class _FileLog:
    """Reads the file itself, which also works when no server runs."""

    def __init__(self, file: Path) -> None:
        from periscope.service import Follower

        self._file = file
        self._follower = Follower([file])

    @property
    def source(self) -> str:
        return str(self._file)

    def last(self, num_lines: int) -> list[str]:
        from periscope.service import last_lines

        return last_lines(self._file, num_lines)

    def added(self, clock: Clock) -> Iterator[str]:
        return self._follower.follow(clock)


@dataclass
class _ServerLog:
    """Asks the server. Owns how far its log has been read."""

    server: Server
    after: int = 0

    @property
    def source(self) -> str:
        return self.server.url

    def last(self, num_lines: int) -> list[str]:
        lines = asyncio.run(self.server.log_lines(max(num_lines, 1)))
        self.after = max([self.after, *(line.id for line in lines)])
        return [line.text for line in lines][-num_lines:] if num_lines else []

    def added(self, clock: Clock) -> Iterator[str]:
        while True:
            clock.sleep(_POLL_S)
            lines = asyncio.run(self.server.log_lines(_MAX_LINES, self.after))
            self.after = max([self.after, *(line.id for line in lines)])
            yield from (f"{line.text}\n" for line in lines)
