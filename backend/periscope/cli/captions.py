"""`periscope captions`: what the caption cache holds, of the running server or in its file, and the way to empty it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, complain, exits
from periscope.cli.options import ConfigFile, Json, Url, load_config, print_json
from periscope.core.amounts import counted, size

if TYPE_CHECKING:
    from periscope.captions.file import CaptionFile
    from periscope.cli.client import Server
    from periscope.core import JSONObject

app = typer.Typer(help="Show or flush the captions that are kept.", no_args_is_help=True)

_MAX_SHOWN: Final = 1000


class _Cache(Protocol):
    """The caption cache, wherever the commands find it."""

    @property
    def server(self) -> str | None:
        """URL of the server that was asked; None for the file."""
        ...

    def kept(self, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
        """The state of the cache, and the captions used last whose keys start with a prefix."""
        ...

    def flush(self) -> tuple[int, bool]:
        """Drop all captions: how many, and whether the file holds none of them any more."""
        ...


@app.command()
@exits()
def stats(*, url: Url = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Tell how many captions are kept, where, and how often they were of use."""
    cache = _find(url, config)
    told, _ = cache.kept(0, "")
    if as_json:
        print_json({"server": cache.server, **told})
        return
    for line in table([("server", cache.server or "none is running"), *_rows(told)]):
        typer.echo(line)


@app.command()
@exits()
def show(
    key: Annotated[str, typer.Argument(help="Beginning of a key, or of a picture's SHA-256.", show_default=False)] = "",
    *,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=_MAX_SHOWN, help="Captions to show.")] = 20,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Show the captions that were used last, or those of one picture."""
    cache = _find(url, config)
    _, captions = cache.kept(limit, key)
    if as_json:
        print_json({"server": cache.server, "captions": captions})
    elif not captions:
        complain("No caption is kept." if not key else f"No caption is kept under a key that begins with {key}.")
    for caption in () if as_json else captions:
        used = datetime.fromtimestamp(caption["used_at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        typer.echo(f"{caption['key']}  {caption['num_tokens']} tokens, last used {used}\n{caption['text']}\n")


@app.command()
@exits()
def flush(*, url: Url = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Drop all captions, of the running server and in the file: pictures are described anew."""
    cache = _find(url, config)
    num_dropped, is_written = cache.flush()
    if as_json:
        print_json({"server": cache.server, "flushed": num_dropped, "is_written": is_written})
    else:
        typer.echo(f"Dropped {counted(num_dropped, 'caption')}.")
    if not is_written:
        raise CommandFailed("The server could not empty its file; its log says why. They are gone from memory only.")


def _find(url: str | None, config: Path | None) -> _Cache:
    """The running server's cache; without a server the file that the next one would use."""
    from periscope.cli.client import find_server

    loaded = load_config(config)
    server = find_server(url, loaded)
    return _FileCache(Path(loaded.caption_cache.path or "")) if server is None else _ServerCache(server)


@dataclass(frozen=True, slots=True)
class _ServerCache:
    """Asks a running server, which alone knows what it holds in memory."""

    asked: Server

    @property
    def server(self) -> str | None:
        return self.asked.url

    def kept(self, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
        return asyncio.run(self.asked.kept_captions(limit, key))

    def flush(self) -> tuple[int, bool]:
        return asyncio.run(self.asked.flush_captions())


@dataclass(frozen=True, slots=True)
class _FileCache:
    """Opens the file itself, and makes none where there is none."""

    path: Path

    @property
    def server(self) -> str | None:
        return None

    def kept(self, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
        from periscope.api.kept_captions import encode_kept
        from periscope.captions.kept import most_recent

        state: JSONObject = {"num_entries": 0, "num_bytes": 0, "file": {"path": str(self.path), "state": "missing"}}
        if not self.path.exists():
            return state, []
        with self._opened() as file:
            totals = file.totals()
            with closing(file.recent()) as entries:
                captions = [encode_kept(kept) for kept in most_recent(entries, limit, key)]
        state |= {"num_entries": totals.num_entries, "num_bytes": totals.num_bytes}
        return {**state, "file": {"path": str(self.path), "state": "unopened"}}, captions

    def flush(self) -> tuple[int, bool]:
        if not self.path.exists():
            return 0, True
        with self._opened() as file:
            totals = file.totals()
            file.apply({}, clears=True)
        return totals.num_entries, True

    @contextmanager
    def _opened(self) -> Iterator[CaptionFile]:
        from periscope.captions.file import CaptionFile
        from periscope.sqlite_file import FileNotUsable

        try:
            with closing(CaptionFile.open(self.path)) as file:
                yield file
        except FileNotUsable as error:
            raise CommandFailed(
                f"{self.path} cannot be used: {error}. `periscope serve` sets it aside and begins a new one."
            ) from None
        except (OSError, sqlite3.Error) as error:
            raise CommandFailed(f"{self.path} cannot be used: {error}. Set `caption_cache.path` to another.") from None


def _rows(told: JSONObject) -> Iterator[tuple[str, str]]:
    yield "captions", str(told["num_entries"])
    bound = f" of {size(told['max_bytes'])}" if "max_bytes" in told else ""
    yield "size", f"{size(told['num_bytes'])}{bound}"
    if "num_hits" in told:
        yield "hits", f"{told['num_hits']}, and {told['num_misses']} had to be made, since the server started"
    file = told["file"]
    yield "file", "none, captions are kept in memory only" if file is None else f"{file['path']} ({file['state']})"
