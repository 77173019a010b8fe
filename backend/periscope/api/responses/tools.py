"""`tools` and `tool_choice`, wire to core, and the names by which clients know the tools that were called. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from periscope.api.errors import UnsupportedParameter
from periscope.api.schema_nulls import without_nulls
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.wording import clip, kind_of
from periscope.core import Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.responses.schema import ToolChoiceWire, ToolWire
    from periscope.core import JSONObject

_FUNCTION, _CUSTOM, _NAMESPACE = "function", "custom", "namespace"
_MODES: Mapping[str, ToolChoiceMode] = {
    "none": ToolChoiceMode.NONE,
    "auto": ToolChoiceMode.AUTO,
    "required": ToolChoiceMode.REQUIRED,
}
#: The one argument of the function that stands for a custom tool.
_INPUT: Final = "input"


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
class Toolset:
    """The tools of one request.

    Attributes:
        offered: those that the model may call, under the names by which it knows them.
        by_name: the same and those that `tool_choice` does not allow now, by such a name.
        left_out: places of tools that OpenAI would run, and of what custom tools ask for beside a text.
    """

    offered: tuple[Tool, ...] = ()
    by_name: Mapping[str, ClientTool] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def known(self, name: str) -> ClientTool:
        """The tool that the model has called, which may be one that nobody offered."""
        return self.by_name.get(name) or ClientTool(name)


def name_for_model(name: str, namespace: str | None) -> str:
    """The name by which the model knows a tool. It is the same in every turn, whatever other tools there are."""
    return name if not namespace else f"{namespace.rstrip('_')}__{name}"


def custom_arguments(text: str) -> str:
    """The arguments of the function that stands for a custom tool."""
    return json.dumps({_INPUT: text}, ensure_ascii=False)


def custom_input(arguments: str) -> str:
    """The text of a call of a custom tool; what the model wrote instead of it, if it did."""
    try:
        value: Any = json.loads(arguments)
    except ValueError:
        return arguments
    return value[_INPUT] if isinstance(value, dict) and isinstance(value.get(_INPUT), str) else arguments


def decode_tools(wires: Sequence[ToolWire], path: str = "tools") -> Toolset:
    """The tools that the client runs. Those that OpenAI runs, and unknown ones, are left out.

    Raises:
        InvalidRequest: a tool has no name, or two have the same.
    """
    found = list(_run_by_client(wires, path))
    refuse_repeated_names((f"{place}.name", tool.name) for place, tool, _ in found)
    by_name = {tool.name: known for _, tool, known in found}
    return Toolset(tuple(tool for _, tool, _ in found), by_name, tuple(_left_out(wires, path)))


def refuse_hosted_alone(wires: Sequence[ToolWire], tools: Toolset) -> None:
    """Check that a request with tools has one that the client runs: without it the answer would not be what is asked.

    Raises:
        UnsupportedParameter: there are only tools that OpenAI runs.
    """
    if wires and not tools.offered:
        raise UnsupportedParameter(
            f"`tools[0].type` is {kind_of(wires[0].type)}. This server runs no tools of OpenAI's; send tools that the "
            "client runs, of type `function` or `custom`.",
            param="tools[0].type",
        )


def _run_by_client(
    wires: Sequence[ToolWire], path: str, group: ToolWire | None = None
) -> Iterator[tuple[str, Tool, ClientTool]]:
    """Each tool with its place."""
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
        yield place, _tool(wire, name_for_model(known.name, known.namespace)), known


def _tool(wire: ToolWire, name: str) -> Tool:
    description = wire.description or ""
    if wire.type == _FUNCTION:
        return Tool(name, description, without_nulls(wire.parameters or {}), is_strict=wire.strict is True)
    grammar = (wire.format or {}).get("definition")
    told = f"The input must fit this grammar:\n{grammar}" if isinstance(grammar, str) else ""
    schema = {"type": "object", "properties": {_INPUT: {"type": "string"}}, "required": [_INPUT]}
    return Tool(name, "\n\n".join(filter(None, (description, told))), schema)


def _left_out(wires: Sequence[ToolWire], path: str) -> Iterator[str]:
    for i, wire in enumerate(wires):
        place = f"{path}[{i}]"
        if wire.type == _NAMESPACE:
            yield from _left_out(wire.tools or (), f"{place}.tools")
        elif wire.type == _CUSTOM and (wire.format or {}).get("type", "text") != "text":
            yield f"{place}.format (told to the model, and not enforced)"
        elif wire.type not in (_FUNCTION, _CUSTOM):
            yield f"{place} ({clip(wire.type)})"


def joined(first: Toolset, more: Toolset) -> Toolset:
    """The tools of a request and those that items of its input add, unless the name is there already."""
    new = tuple(tool for tool in more.offered if tool.name not in first.by_name)
    return Toolset((*first.offered, *new), {**more.by_name, **first.by_name}, (*first.left_out, *more.left_out))


def decode_tool_choice(
    wire: ToolChoiceWire | None, tools: Toolset, *, is_parallel: bool
) -> tuple[tuple[Tool, ...], ToolChoice]:
    """The tools that the model may call now, and whether it may, must not or must call one of them.

    Raises:
        UnsupportedParameter: it demands a tool that OpenAI runs.
        InvalidRequest: there is no such kind of choice, no such tool, or no tool at all.
    """
    if wire is None:
        return tools.offered, ToolChoice(is_parallel=is_parallel)
    if wire.type == "allowed_tools":
        return _allowed(wire, tools, is_parallel=is_parallel)
    if wire.type in (_FUNCTION, _CUSTOM):
        name = _named({"name": wire.name, "namespace": wire.namespace}, tools, "tool_choice")
        return tools.offered, ToolChoice(ToolChoiceMode.REQUIRED, name, is_parallel)
    return tools.offered, ToolChoice(_mode(wire.type, tools.offered), None, is_parallel)


def _allowed(wire: ToolChoiceWire, tools: Toolset, *, is_parallel: bool) -> tuple[tuple[Tool, ...], ToolChoice]:
    if wire.mode not in ("auto", "required"):
        raise InvalidRequest(
            f"`tool_choice.mode` must be auto or required, got {kind_of(wire.mode)}.", param="tool_choice.mode"
        )
    wanted = [(f"tool_choice.tools[{i}]", each) for i, each in enumerate(wire.tools or ())]
    # Tools that were left out cannot be called anyway.
    names = {_named(each, tools, at) for at, each in wanted if each.get("type") in (_FUNCTION, _CUSTOM)}
    offered = tuple(tool for tool in tools.offered if tool.name in names)
    return offered, ToolChoice(_mode(wire.mode, offered), None, is_parallel)


def _mode(kind: str, offered: Sequence[Tool]) -> ToolChoiceMode:
    if kind not in _MODES:
        error = InvalidRequest if not kind else UnsupportedParameter
        raise error(
            "`tool_choice` must be `none`, `auto`, `required`, or name functions or custom tools that the client runs, "
            f"got {kind_of(kind)}.",
            param="tool_choice",
        )
    mode = _MODES[kind]
    if mode is ToolChoiceMode.REQUIRED and not offered:
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools` for it.", param="tool_choice")
    return mode


def _named(told: JSONObject, tools: Toolset, path: str) -> str:
    """The name for the model of a tool that the client has named."""
    name, namespace = told.get("name"), told.get("namespace")
    if not isinstance(name, str) or not name:
        raise InvalidRequest(f"`{path}.name` is missing: it names the tool.", param=f"{path}.name")
    wanted = name_for_model(name, namespace if isinstance(namespace, str) else None)
    return known_name(wanted, [tool.name for tool in tools.offered], f"{path}.name")
