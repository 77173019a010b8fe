"""`tools` and `tool_choice`, wire to core. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from periscope.api.anthropic.client_tools import CLIENT_TOOLS
from periscope.api.errors import UnsupportedParameter
from periscope.api.schema_nulls import without_nulls
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.wording import kind_of
from periscope.core import Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.anthropic.schema import ToolChoiceWire, ToolWire

_MODES: Mapping[str, ToolChoiceMode] = {
    "auto": ToolChoiceMode.AUTO,
    "any": ToolChoiceMode.REQUIRED,
    "tool": ToolChoiceMode.REQUIRED,
    "none": ToolChoiceMode.NONE,
}


def is_hosted(wire: ToolWire) -> bool:
    """Whether the tool is one that Anthropic runs (`web_search_20250305`), or one of which nothing is known here."""
    return wire.type not in (None, "custom", *CLIENT_TOOLS)


def decode_tools(wires: Sequence[ToolWire]) -> tuple[Tool, ...]:
    """The tools that are offered to the model; those that Anthropic runs are left out.

    Tools with `defer_loading` are offered from the start, so that the prompt stays the same once a `tool_reference`
    names one.

    Raises:
        UnsupportedParameter: there are only tools that Anthropic runs.
        InvalidRequest: a tool has no name, or two have the same.
    """
    run_by_client = {i: wire for i, wire in enumerate(wires) if not is_hosted(wire)}
    if wires and not run_by_client:
        raise UnsupportedParameter(
            f"`tools[0].type` is {kind_of(wires[0].type)}. This server runs no tools of Anthropic's; send tools that "
            "the client runs, with an `input_schema`.",
            param="tools[0].type",
        )
    tools = {f"tools[{i}].name": _tool(wire, f"tools[{i}]") for i, wire in run_by_client.items()}
    refuse_repeated_names((place, tool.name) for place, tool in tools.items())
    return tuple(tools.values())


def _tool(wire: ToolWire, path: str) -> Tool:
    if (known := CLIENT_TOOLS.get(wire.type or "")) is not None:
        return known
    if wire.name is None:
        raise InvalidRequest(f"`{path}.name` is missing.", param=f"{path}.name")
    schema = without_nulls(wire.input_schema or {})
    return Tool(wire.name, wire.description or "", schema, is_strict=wire.strict is True)


def decode_tool_choice(wire: ToolChoiceWire | None, tools: Sequence[Tool]) -> ToolChoice:
    """Whether the model may, must not or must call one of `tools`.

    Raises:
        InvalidRequest: there is no such kind of choice, no such tool, or no tool at all.
    """
    if wire is None:
        return ToolChoice()
    if wire.type not in _MODES:
        raise InvalidRequest(
            f"`tool_choice.type` must be one of {', '.join(_MODES)}, got {kind_of(wire.type)}.",
            param="tool_choice.type",
        )
    mode = _MODES[wire.type]
    if mode is ToolChoiceMode.REQUIRED and not tools:
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    return ToolChoice(mode, _name(wire, tools), is_parallel=not wire.disable_parallel_tool_use)


def _name(wire: ToolChoiceWire, tools: Sequence[Tool]) -> str | None:
    if wire.type != "tool":
        return None
    if wire.name is None:
        raise InvalidRequest("`tool_choice.name` is missing: it names the tool.", param="tool_choice.name")
    return known_name(wire.name, [tool.name for tool in tools], "tool_choice.name")
