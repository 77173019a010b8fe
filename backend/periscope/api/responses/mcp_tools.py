"""`tools` of type `mcp`, wire to plain data, and the choice among their tools. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from periscope.api.fields import noted_fields, refuse_fields
from periscope.api.responses.fields import MCP_FIELDS
from periscope.api.tool_names import refuse_repeated_names
from periscope.api.validation import Name, Wire, validate
from periscope.api.wording import clip, kind_of
from periscope.core import ListedTool, Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest
from periscope.serving.server_tools import MAX_CALLS, ApprovedCall

if TYPE_CHECKING:
    from periscope.api.responses.schema import ToolWire
    from periscope.core import JSONObject

MCP: Final = "mcp"
_MAX_NAME_CHARS: Final = 64
_NOT_IN_NAMES: Final = re.compile(r"[^A-Za-z0-9_-]")


class _FilterWire(Wire):
    tool_names: list[str] | None = None
    read_only: bool | None = None


class _ApprovalWire(Wire):
    always: _FilterWire | None = None
    never: _FilterWire | None = None


class McpWire(Wire):
    """An entry of `tools` of type `mcp`."""

    type: Literal["mcp"]
    server_label: Name
    allowed_tools: list[str] | _FilterWire | None = None
    require_approval: Literal["always", "never"] | _ApprovalWire | None = None


@dataclass(frozen=True, slots=True)
class ServersTool:
    """A tool on an MCP server, as clients know it."""

    server: str
    name: str


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Some of a server's tools: those of these names, and those of which the server says so. None = any."""

    names: frozenset[str] | None = None
    is_read_only: bool | None = None

    def matches(self, listed: ListedTool) -> bool:
        """Whether the tool is among them."""
        is_named = self.names is None or listed.tool.name in self.names
        return is_named and self.is_read_only in (None, listed.is_read_only)


@dataclass(frozen=True, slots=True)
class AskedServer:
    """An entry of `tools`: a server of models.yaml, and which of its tools are asked for.

    Attributes:
        always, never: calls that wait for an approval, and that do not; None = the request does not say.
    """

    label: str
    place: str
    allowed: ToolFilter = ToolFilter()
    always: ToolFilter | None = None
    never: ToolFilter | None = None

    def wants_approval(self, listed: ListedTool) -> bool | None:
        """Whether calls of the tool wait for an approval, as far as the request says."""
        if self.never is not None and self.never.matches(listed):
            return False
        if self.always is not None and self.always.matches(listed):
            return True
        return None


@dataclass(frozen=True, slots=True)
class ApprovedTool:
    """A call that the client has agreed to, and the tool as the client knows it."""

    approved: ApprovedCall
    tool: ServersTool


@dataclass(frozen=True, slots=True)
class ServersAsked:
    """What a request asks of MCP servers.

    Attributes:
        lists: the tools of servers that the conversation has listed already, by label.
        chosen: those that `tool_choice` names; without a name, all of the server's.
        max_calls: all calls together.
    """

    entries: tuple[AskedServer, ...] = ()
    lists: Mapping[str, tuple[ListedTool, ...]] = field(default_factory=dict)
    approved: tuple[ApprovedTool, ...] = ()
    chosen: tuple[ServersTool, ...] = ()
    max_calls: int = MAX_CALLS


def decode_servers(wires: Sequence[ToolWire], known: Sequence[str], path: str = "tools") -> tuple[AskedServer, ...]:
    """The entries of type `mcp`.

    Args:
        known: the servers of models.yaml.

    Raises:
        UnsupportedParameter: one says itself where its server is.
        InvalidRequest: one names no server of models.yaml, or the same as another.
    """
    asked = [_asked(wire, f"{path}[{i}]", known) for i, wire in enumerate(wires) if wire.type == MCP]
    refuse_repeated_names((f"{each.place}.server_label", each.label) for each in asked)
    return tuple(asked)


def _asked(wire: ToolWire, place: str, known: Sequence[str]) -> AskedServer:
    extra = wire.model_extra or {}
    refuse_fields(extra, MCP_FIELDS, place=f"{place}.")
    told = validate(McpWire, extra | {"type": wire.type}, place)
    if told.server_label not in known:
        names = clip(", ".join(known), 400) or "none"
        raise InvalidRequest(
            f"`{place}.server_label` is {kind_of(told.server_label)}, and no MCP server of that name is in "
            f"`mcp_servers` of models.yaml. Known are: {names}.",
            param=f"{place}.server_label",
        )
    allowed = told.allowed_tools
    return AskedServer(
        told.server_label,
        place,
        ToolFilter(frozenset(allowed)) if isinstance(allowed, list) else _filter(allowed) or ToolFilter(),
        *_approvals(told.require_approval),
    )


def _approvals(told: str | _ApprovalWire | None) -> tuple[ToolFilter | None, ToolFilter | None]:
    """Which calls always and never wait. A filter for one of the two leaves the rest to what holds without it."""
    if told is None:
        return None, None
    if isinstance(told, str):
        return (ToolFilter(), None) if told == "always" else (None, ToolFilter())
    return _filter(told.always), _filter(told.never)


def _filter(wire: _FilterWire | None) -> ToolFilter | None:
    if wire is None:
        return None
    return ToolFilter(None if wire.tool_names is None else frozenset(wire.tool_names), wire.read_only)


def unused_of_servers(wires: Sequence[ToolWire], path: str = "tools") -> Iterator[str]:
    """The places of what such entries say in vain."""
    for i, wire in enumerate(wires):
        if wire.type == MCP:
            yield from noted_fields(_beside(wire.model_extra), MCP_FIELDS, place=f"{path}[{i}].")


def _beside(extra: JSONObject | None) -> JSONObject:
    return {name: value for name, value in (extra or {}).items() if name not in McpWire.model_fields}


def server_tool_name(server: str, tool: str) -> str:
    """The name by which the model knows a tool on a server: the same in every turn, whatever other tools there are."""
    return _NOT_IN_NAMES.sub("_", f"{server.rstrip('_')}__{tool}")[:_MAX_NAME_CHARS]


def listed_of(item: JSONObject) -> tuple[ListedTool, ...] | None:
    """The tools of a `mcp_list_tools` item; None if it has failed, or does not have the shape that it is sent in."""
    tools = item.get("tools")
    if item.get("error") is not None or not isinstance(tools, list):
        return None
    listed = [_listed(each) for each in tools]
    return None if None in listed else tuple(each for each in listed if each is not None)


def _listed(told: Any) -> ListedTool | None:
    if not isinstance(told, dict) or not isinstance(told.get("name"), str):
        return None
    schema, notes = told.get("input_schema"), told.get("annotations")
    if not isinstance(schema, dict):
        return None
    tool = Tool(told["name"], str(told.get("description") or ""), schema)
    return ListedTool(tool, notes if isinstance(notes, dict) else None)


def chosen_on_servers(
    choice: ToolChoice, chosen: Sequence[ServersTool], names: Mapping[str, ServersTool]
) -> ToolChoice:
    """The choice with the tools on servers that it names, under the names by which the model knows them.

    Args:
        names: all such tools of the request, by these names.

    Raises:
        InvalidRequest: a server has no tool that is named.
    """
    wanted: set[str] = set()
    for each in chosen:
        found = {name for name, tool in names.items() if tool.server == each.server and each.name in ("", tool.name)}
        if not found:
            told = f"a tool {clip(each.name)}" if each.name else "tools"
            raise InvalidRequest(
                f"`tool_choice` names {told} of the MCP server {each.server}, which offers none here. Look at its "
                "`mcp_list_tools` item, and at `allowed_tools`.",
                param="tool_choice",
            )
        wanted |= found
    if not wanted:
        return choice
    allowed = frozenset(wanted) | (choice.allowed or frozenset())
    if choice.mode is ToolChoiceMode.REQUIRED and len(allowed) == 1:
        return replace(choice, name=next(iter(allowed)), allowed=None)
    return replace(choice, allowed=allowed)
