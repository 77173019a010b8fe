"""`tools` and `tool_choice`, wire to core, and the names by which clients know the tools that were called. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periscope.api.custom_tools import CustomTool, custom_tool
from periscope.api.errors import UnsupportedParameter
from periscope.api.responses.mcp_tools import MCP, ServersTool
from periscope.api.schema_nulls import without_nulls
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.toolset import Toolset
from periscope.api.wording import clip, kind_of
from periscope.core import Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.responses.mcp_tools import AskedServer
    from periscope.api.responses.schema import ToolChoiceWire, ToolWire
    from periscope.core import JSONObject

_FUNCTION, _CUSTOM, _NAMESPACE = "function", "custom", "namespace"
_MODES: Mapping[str, ToolChoiceMode] = {
    "none": ToolChoiceMode.NONE,
    "auto": ToolChoiceMode.AUTO,
    "required": ToolChoiceMode.REQUIRED,
}


@dataclass(frozen=True, slots=True)
class ClientTool:
    """A tool as the client knows it.

    Attributes:
        namespace: the name of the group that it came in; None if it came alone.
        is_custom: its calls hold a text, not the arguments of a function.
    """

    name: str
    namespace: str | None = None
    is_custom: bool = False


@dataclass(frozen=True, slots=True)
class NamedTools(Toolset):
    """The tools of one request, under the names by which the model knows them.

    Attributes:
        by_name: the same as the client knows them, by such a name.
    """

    by_name: Mapping[str, ClientTool] = field(default_factory=dict)

    def known(self, name: str) -> ClientTool:
        """The tool that the model has called, which may be one that nobody offered."""
        return self.by_name.get(name) or ClientTool(name)


def name_for_model(name: str, namespace: str | None) -> str:
    """The name by which the model knows a tool. It is the same in every turn, whatever other tools there are."""
    return name if not namespace else f"{namespace.rstrip('_')}__{name}"


def decode_tools(wires: Sequence[ToolWire], path: str = "tools") -> NamedTools:
    """The tools that the client runs. Those that OpenAI runs, and unknown ones, are left out.

    Raises:
        InvalidRequest: a tool has no name, or two have the same.
    """
    found = list(_run_by_client(wires, path))
    refuse_repeated_names((f"{each.place}.name", each.tool.name) for each in found)
    return NamedTools(
        offered=tuple(each.tool for each in found),
        customs={each.tool.name: each.custom for each in found if each.custom is not None},
        left_out=tuple(_left_out(wires, path)),
        has_servers=any(wire.type == MCP for wire in wires),
        by_name={each.tool.name: each.known for each in found},
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """A tool that the client runs, and its place in the request."""

    place: str
    known: ClientTool
    tool: Tool
    custom: CustomTool | None = None


def _run_by_client(wires: Sequence[ToolWire], path: str, group: ToolWire | None = None) -> Iterator[_Found]:
    for i, wire in enumerate(wires):
        place = f"{path}[{i}]"
        if wire.type not in (_FUNCTION, _CUSTOM, _NAMESPACE):
            continue
        if wire.name is None:
            raise InvalidRequest(f"`{place}.name` is missing.", param=f"{place}.name")
        if wire.type == _NAMESPACE:
            yield from _run_by_client(wire.tools or (), f"{place}.tools", group=wire)
            continue
        known = ClientTool(wire.name, group.name if group else None, is_custom=wire.type == _CUSTOM)
        name = name_for_model(known.name, known.namespace)
        if known.is_custom:
            custom = _custom(wire, name, f"{place}.format")
            yield _Found(place, known, custom.tool, custom)
        else:
            schema = without_nulls(wire.parameters or {})
            yield _Found(place, known, Tool(name, wire.description or "", schema, is_strict=wire.strict is True))


def _custom(wire: ToolWire, name: str, path: str) -> CustomTool:
    told, form = wire.description or "", wire.format
    if form is None or form.type == "text":
        return custom_tool(name, told)
    if form.type != "grammar" or form.syntax not in ("lark", "regex"):
        raise UnsupportedParameter(
            f"`{path}` must be of type text, or of type grammar with the syntax lark or regex, got "
            f"{kind_of(form.type)} with {kind_of(form.syntax)}.",
            param=path,
        )
    return custom_tool(name, told, syntax=form.syntax, definition=form.definition or "", param=f"{path}.definition")


def _left_out(wires: Sequence[ToolWire], path: str) -> Iterator[str]:
    for i, wire in enumerate(wires):
        place = f"{path}[{i}]"
        if wire.type == _NAMESPACE:
            yield from _left_out(wire.tools or (), f"{place}.tools")
        elif wire.type not in (_FUNCTION, _CUSTOM) and not (wire.type == MCP and path == "tools"):
            yield f"{place} ({clip(wire.type)})"


def joined(first: NamedTools, more: NamedTools) -> NamedTools:
    """The tools of a request and those that items of its input add, unless the name is there already."""
    new = tuple(tool for tool in more.offered if tool.name not in first.by_name)
    return NamedTools(
        offered=(*first.offered, *new),
        customs={tool.name: custom for tool in new if (custom := more.customs.get(tool.name))} | dict(first.customs),
        left_out=(*first.left_out, *more.left_out),
        has_servers=first.has_servers,
        by_name={**more.by_name, **first.by_name},
    )


def decode_tool_choice(
    wire: ToolChoiceWire | None, tools: Toolset, servers: Sequence[AskedServer] = (), *, is_parallel: bool
) -> tuple[ToolChoice, tuple[ServersTool, ...]]:
    """Whether the model may, must not or must call one of `tools`, and which of them; and which of MCP servers.

    The names of the latter are known when the servers have listed them.

    Raises:
        UnsupportedParameter: it demands a tool that OpenAI runs.
        InvalidRequest: there is no such kind of choice, no such tool, or no tool at all.
    """
    if wire is None:
        return ToolChoice(is_parallel=is_parallel), ()
    if wire.type == "allowed_tools":
        return _allowed(wire, tools, servers, is_parallel=is_parallel)
    if wire.type in (_FUNCTION, _CUSTOM):
        name = _named({"name": wire.name, "namespace": wire.namespace}, tools, "tool_choice")
        return ToolChoice(ToolChoiceMode.REQUIRED, name, is_parallel), ()
    if wire.type == MCP:
        told = {"server_label": wire.server_label, "name": wire.name}
        return ToolChoice(ToolChoiceMode.REQUIRED, None, is_parallel), (_on_server(told, "tool_choice", servers),)
    return ToolChoice(_mode(wire.type, has_tools=bool(tools.offered or servers)), None, is_parallel), ()


def _allowed(
    wire: ToolChoiceWire, tools: Toolset, servers: Sequence[AskedServer], *, is_parallel: bool
) -> tuple[ToolChoice, tuple[ServersTool, ...]]:
    if wire.mode not in ("auto", "required"):
        raise InvalidRequest(
            f"`tool_choice.mode` must be auto or required, got {kind_of(wire.mode)}.", param="tool_choice.mode"
        )
    wanted = [(f"tool_choice.tools[{i}]", each) for i, each in enumerate(wire.tools or ())]
    # Tools that were left out cannot be called anyway.
    names = {_named(each, tools, at) for at, each in wanted if each.get("type") in (_FUNCTION, _CUSTOM)}
    on_servers = tuple(_on_server(each, at, servers) for at, each in wanted if each.get("type") == MCP)
    if not names and not on_servers:
        raise InvalidRequest(
            "`tool_choice.tools` names no tool that can be called: name one, or set `tool_choice` to none.",
            param="tool_choice.tools",
        )
    return ToolChoice(_MODES[wire.mode], None, is_parallel, frozenset(names) or None), on_servers


def _on_server(told: JSONObject, path: str, servers: Sequence[AskedServer]) -> ServersTool:
    label, name = told.get("server_label"), told.get("name")
    if label not in [each.label for each in servers]:
        raise InvalidRequest(
            f"`{path}.server_label` must be that of an entry of `tools` of type mcp, got {kind_of(label)}.",
            param=f"{path}.server_label",
        )
    if name is not None and (not isinstance(name, str) or not name):
        raise InvalidRequest(f"`{path}.name` must be a tool of the server, got {kind_of(name)}.", param=f"{path}.name")
    return ServersTool(str(label), name or "")


def _mode(kind: str, *, has_tools: bool) -> ToolChoiceMode:
    if kind not in _MODES:
        error = InvalidRequest if not kind else UnsupportedParameter
        raise error(
            "`tool_choice` must be `none`, `auto`, `required`, or name tools that the client runs or tools of an MCP "
            f"server, got {kind_of(kind)}.",
            param="tool_choice",
        )
    mode = _MODES[kind]
    if mode is ToolChoiceMode.REQUIRED and not has_tools:
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    return mode


def _named(told: JSONObject, tools: Toolset, path: str) -> str:
    """The name for the model of a tool that the client has named."""
    name, namespace = told.get("name"), told.get("namespace")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"`{path}.name` is missing: it names the tool.", param=f"{path}.name")
    wanted = name_for_model(name, namespace if isinstance(namespace, str) else None)
    return known_name(wanted, [tool.name for tool in tools.offered], f"{path}.name")
