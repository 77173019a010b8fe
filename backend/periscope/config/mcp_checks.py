"""Checks of `mcp_servers` across several keys, and its paths made absolute. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from periscope.config.document import Document, Problem
from periscope.config.keys import Loc, dotted
from periscope.config.mcp_schema import OF_COMMAND, OF_URL, McpServerConfig
from periscope.config.resolve import absolute

_KEY: Final = "mcp_servers"


def mcp_problems(document: Document) -> Iterator[Problem]:
    """Names that stand twice, servers with no place or two, and keys of the other kind of server."""
    seen: dict[str, int] = {}
    entries = document.tree.get(_KEY) if isinstance(document.tree, dict) else None
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        if not isinstance(entry, dict):
            continue
        at: Loc = (_KEY, index)
        name = entry.get("name")
        first = seen.setdefault(name, index) if isinstance(name, str) else index
        if first != index:
            line = document.origin((_KEY, first, "name")).line
            yield _problem(document, (*at, "name"), f"is already taken in line {line}")
        yield from (_problem(document, (*at, *key), fault) for key, fault in _faults(entry))


def _faults(entry: Mapping[str, object]) -> Iterator[tuple[Loc, str]]:
    """What is wrong with one server's keys by themselves, each with the key that it is about."""
    given = {key for key, value in entry.items() if value is not None}
    places = [key for key in ("url", "command") if key in given]
    if len(places) != 1:
        yield (), f"has {' and '.join(places) or 'neither url nor command'}; give one"
        return
    other, kind = (OF_COMMAND, "a program") if places == ["url"] else (OF_URL, "a server at a url")
    for key in other:
        if key in given:
            yield (key,), f"is for {kind}, and this one has {places[0]}; remove it"
    if {"auth_token_env", "auth_token_file"} <= given:
        yield ("auth_token_file",), "stands beside auth_token_env; give one"


def placed_server(server: McpServerConfig, folder: Path) -> McpServerConfig:
    """The same with absolute paths. A command with a slash is a path, relative to the file, too."""
    paths = {
        key: str(absolute(path, folder))
        for key in ("auth_token_file", "ca_file", "cwd")
        if (path := getattr(server, key)) is not None
    }
    if server.command is not None and ("/" in server.command or server.command.startswith("~")):
        paths["command"] = str(absolute(server.command, folder))
    return server.model_copy(update=paths)


def _problem(document: Document, loc: Loc, fault: str) -> Problem:
    return Problem(document.origin(loc), f"{dotted(loc)} {fault}")
