"""`tools` and `tool_choice`, wire to core. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from periscope.api.custom_tools import CustomTool, custom_tool
from periscope.api.errors import UnsupportedParameter
from periscope.api.schema_nulls import without_nulls
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.toolset import Toolset, refuse_hosted_alone
from periscope.api.wording import clip, kind_of
from periscope.core import Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import (
        AllowedToolsWire,
        CustomToolWire,
        FunctionWire,
        ToolChoiceWire,
        ToolReferenceWire,
        ToolWire,
    )

PartT = TypeVar("PartT")

_FUNCTION, _CUSTOM, _ALLOWED = "function", "custom", "allowed_tools"
_MODES: Mapping[str, ToolChoiceMode] = {
    "none": ToolChoiceMode.NONE,
    "auto": ToolChoiceMode.AUTO,
    "required": ToolChoiceMode.REQUIRED,
    "any": ToolChoiceMode.REQUIRED,  # Mistral's and Anthropic's name
    _FUNCTION: ToolChoiceMode.REQUIRED,
    _CUSTOM: ToolChoiceMode.REQUIRED,
}


def decode_tools(wires: Sequence[ToolWire]) -> Toolset:
    """The tools that the request offers. Those that the client does not run are left out.

    Raises:
        UnsupportedParameter: the client runs none of them, or a custom tool's format is not known.
        InvalidRequest: one is incomplete, or two have the same name, so that a call could mean either.
    """
    tools: dict[str, Tool] = {}
    customs: dict[str, CustomTool] = {}
    for i, wire in enumerate(wires):
        path = f"tools[{i}].{wire.type}"
        if wire.type == _FUNCTION:
            tools[f"{path}.name"] = function_tool(_required(wire.function, path))
        elif wire.type == _CUSTOM:
            custom = _custom(_required(wire.custom, path), path)
            tools[f"{path}.name"] = custom.tool
            customs[custom.tool.name] = custom
    refuse_repeated_names((place, tool.name) for place, tool in tools.items())
    hosted = [(i, wire.type) for i, wire in enumerate(wires) if wire.type not in (_FUNCTION, _CUSTOM)]
    offered = Toolset(tuple(tools.values()), customs, tuple(f"tools[{i}] ({clip(kind)})" for i, kind in hosted))
    refuse_hosted_alone([wire.type for wire in wires], offered)
    return offered


def _required(part: PartT | None, path: str) -> PartT:
    if part is None:
        raise InvalidRequest(f"`{path}` is missing.", param=path)
    return part


def function_tool(wire: FunctionWire) -> Tool:
    """A function that the client runs."""
    parameters = without_nulls(wire.parameters or {})
    return Tool(wire.name, wire.description or "", parameters, is_strict=wire.strict is True)


def _custom(wire: CustomToolWire, path: str) -> CustomTool:
    told, form = wire.description or "", wire.format
    if form is None or form.type == "text":
        return custom_tool(wire.name, told)
    path = f"{path}.format"
    if form.type != "grammar":
        raise UnsupportedParameter(
            f"`{path}.type` must be text or grammar, got {kind_of(form.type)}.", param=f"{path}.type"
        )
    path = f"{path}.grammar"
    grammar = _required(form.grammar, path)
    if grammar.syntax not in ("lark", "regex"):
        raise UnsupportedParameter(
            f"`{path}.syntax` must be lark or regex, got {kind_of(grammar.syntax)}.", param=f"{path}.syntax"
        )
    return custom_tool(
        wire.name, told, syntax=grammar.syntax, definition=grammar.definition, param=f"{path}.definition"
    )


def decode_tool_choice(wire: ToolChoiceWire | None, tools: Toolset, *, is_parallel: bool) -> ToolChoice:
    """Whether the model may, must not or must call one of `tools`.

    Raises:
        InvalidRequest: there is no such kind, no such tool, or no tool at all.
    """
    if wire is None:
        return ToolChoice(is_parallel=is_parallel)
    if wire.type == _ALLOWED:
        return _allowed(_required(wire.allowed_tools, "tool_choice.allowed_tools"), tools, is_parallel=is_parallel)
    if wire.type not in _MODES:
        raise InvalidRequest(
            "`tool_choice` must be `none`, `auto`, `required` or an object that names tools that the client runs, got "
            f"{kind_of(wire.type)}.",
            param="tool_choice",
        )
    mode = _MODES[wire.type]
    if mode is ToolChoiceMode.REQUIRED and not tools.offered:
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    name = _name(wire, tools, "tool_choice") if wire.type in (_FUNCTION, _CUSTOM) else None
    return ToolChoice(mode, name, is_parallel)


def _allowed(wire: AllowedToolsWire, tools: Toolset, *, is_parallel: bool) -> ToolChoice:
    path = "tool_choice.allowed_tools"
    if wire.mode not in ("auto", "required"):
        raise InvalidRequest(f"`{path}.mode` must be auto or required, got {kind_of(wire.mode)}.", param=f"{path}.mode")
    listed = enumerate(wire.tools)
    names = {_name(each, tools, f"{path}.tools[{i}]") for i, each in listed if each.type in (_FUNCTION, _CUSTOM)}
    if not names:  # those that were left out cannot be called anyway
        raise InvalidRequest(
            f"`{path}.tools` names no tool that the client runs: name one, or set `tool_choice` to none.",
            param=f"{path}.tools",
        )
    return ToolChoice(_MODES[wire.mode], None, is_parallel, frozenset(names))


def _name(wire: ToolReferenceWire, tools: Toolset, path: str) -> str:
    named = wire.custom if wire.type == _CUSTOM else wire.function
    if named is None:
        raise InvalidRequest(f"`{path}.{wire.type}` is missing: it names the tool.", param=f"{path}.{wire.type}")
    is_custom = wire.type == _CUSTOM
    known = [tool.name for tool in tools.offered if (tool.name in tools.customs) is is_custom]
    place = f"{path}.{wire.type}.name"
    if not known:
        raise InvalidRequest(f"`{place}` names a tool, and `tools` has none of type `{wire.type}`.", param=place)
    return known_name(named.name, known, place)
