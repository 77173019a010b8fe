"""`tools` and `tool_choice`, wire to core. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from periscope.api.errors import UnsupportedParameter
from periscope.api.schema_nulls import without_nulls
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.wording import kind_of
from periscope.core import Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import ToolChoiceWire, ToolWire

_MODES: Mapping[str, ToolChoiceMode] = {
    "none": ToolChoiceMode.NONE,
    "auto": ToolChoiceMode.AUTO,
    "required": ToolChoiceMode.REQUIRED,
    "any": ToolChoiceMode.REQUIRED,  # Mistral's and Anthropic's name
    "function": ToolChoiceMode.REQUIRED,
}
#: Types of OpenAI's API that this server does not support.
_UNSUPPORTED = ("allowed_tools", "custom")


def decode_tools(wires: Sequence[ToolWire]) -> tuple[Tool, ...]:
    """The functions that the request offers.

    Raises:
        UnsupportedParameter: a tool is not a function.
        InvalidRequest: one is incomplete, or two have the same name, so that a call could mean either.
    """
    tools = tuple(_tool(wire, f"tools[{i}]") for i, wire in enumerate(wires))
    refuse_repeated_names((f"tools[{i}].function.name", tool.name) for i, tool in enumerate(tools))
    return tools


def _tool(wire: ToolWire, path: str) -> Tool:
    refuse_other_types(wire.type, f"{path}.type")
    if wire.function is None:
        raise InvalidRequest(f"`{path}.function` is missing.", param=f"{path}.function")
    function = wire.function
    parameters = without_nulls(function.parameters or {})
    return Tool(function.name, function.description or "", parameters, is_strict=function.strict is True)


def refuse_other_types(value: str, path: str) -> None:
    """Check that the `type` of a tool, if any, is `function`.

    Raises:
        UnsupportedParameter: it is another type.
    """
    if value != "function":
        raise UnsupportedParameter(f"`{path}` must be `function`, got {kind_of(value)}.", param=path)


def decode_tool_choice(wire: ToolChoiceWire | None, tools: Sequence[Tool], *, is_parallel: bool) -> ToolChoice:
    """Whether the model may, must not or must call one of `tools`.

    Raises:
        UnsupportedParameter: the kind of choice is not supported.
        InvalidRequest: there is no such kind, no such tool, or no tool at all.
    """
    if wire is None:
        return ToolChoice(is_parallel=is_parallel)
    mode = _mode(wire.type)
    if mode is ToolChoiceMode.REQUIRED and not tools:
        raise InvalidRequest("`tool_choice` demands a call, but there are no `tools`.", param="tool_choice")
    name = _name(wire, [tool.name for tool in tools]) if wire.type == "function" else None
    return ToolChoice(mode, name, is_parallel)


def _mode(kind: str) -> ToolChoiceMode:
    if kind in _MODES:
        return _MODES[kind]
    expected = "`none`, `auto`, `required` or an object that names a function"
    error = UnsupportedParameter if kind in _UNSUPPORTED else InvalidRequest
    raise error(f"`tool_choice` must be {expected}, got {kind_of(kind)}.", param="tool_choice")


def _name(wire: ToolChoiceWire, known: Sequence[str]) -> str:
    if wire.function is None:
        raise InvalidRequest("`tool_choice.function` is missing: it names the function.", param="tool_choice.function")
    return known_name(wire.function.name, known, "tool_choice.function.name")
