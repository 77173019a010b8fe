"""Sources of tools, and under which names the model is offered them. Pure and protocols only."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Protocol

from periscope.core import JSONObject, Tool, ToolResult

#: Of a tool's name, as OpenAI's API bounds it; models and grammars know no longer ones.
MAX_NAME_CHARS: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")


class ToolSource(Protocol):
    """Has tools and runs them. Event loop only; any number of calls at once."""

    @property
    def name(self) -> str:
        """Stands before the names of its tools where they collide with others."""
        ...

    @property
    def keeps_names(self) -> bool:
        """Whether its tools keep their names and those of others give way: the program has named them."""
        ...

    @property
    def tools(self) -> Sequence[Tool]:
        """The tools that the source has now, under its own names. Does not wait."""
        ...

    async def call(self, name: str, arguments: JSONObject) -> ToolResult:
        """Run one. What fails is told in the result. Cancellable at any await."""
        ...


@dataclass(frozen=True, slots=True)
class Route:
    """Where a tool that the model is offered comes from.

    Attributes:
        tool: as the model is offered it.
        own_name: its name at its source.
    """

    tool: Tool
    source: ToolSource
    own_name: str


def routes_of(sources: Sequence[ToolSource]) -> dict[str, Route]:
    """Pure: the tools of all sources by the names under which the model is offered them, in order.

    A name that only one source has stays as it is. One that several have becomes `source__name` for each of them that
    does not keep its names. What cannot stand in a name becomes `_`, and a name that is taken even then gets a number.
    """
    all_tools = [(source, tool) for source in sources for tool in source.tools]
    counts = Counter(_fitting(tool.name) for _, tool in all_tools)
    routes: dict[str, Route] = {}
    for source, tool in all_tools:
        plain = _fitting(tool.name)
        name = _free(plain if counts[plain] == 1 or source.keeps_names else _fitting(f"{source.name}__{plain}"), routes)
        routes[name] = Route(replace(tool, name=name), source, tool.name)
    return routes


def _fitting(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name)[:MAX_NAME_CHARS] or "_"


def _free(name: str, taken: dict[str, Route]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name[: MAX_NAME_CHARS - len(str(number)) - 1]}_{number}"
    return free
