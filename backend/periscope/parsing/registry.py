"""Which parser reads a completion: decided by the model's output format and by what the client asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from periscope.core import OutputFormat, ToolCallStyle, ToolChoice, ToolChoiceMode
from periscope.parsing.bare_calls import FORCED, LLAMA, BareCallParser
from periscope.parsing.contracts import Parser, new_call_id
from periscope.parsing.harmony import HarmonyParser
from periscope.parsing.stream import OutputParser

if TYPE_CHECKING:
    from periscope.core import Tool


def parser_for(
    output_format: OutputFormat,
    tools: tuple[Tool, ...],
    tool_choice: ToolChoice = ToolChoice(),
    new_call_id: Callable[[], str] = new_call_id,
) -> Parser:
    """A fresh parser for one completion.

    A forced call is read in the model's own syntax if that is JSON (`OutputFormat.writes_json_calls`); any other model
    was made to write a bare JSON array. Without tools, and with `ToolChoiceMode.NONE`, nothing is a call.
    """
    offered = () if tool_choice.mode is ToolChoiceMode.NONE else tools
    split = HarmonyParser if output_format.tool_call_style is ToolCallStyle.HARMONY else OutputParser
    names = frozenset(tool.name for tool in offered)
    if offered and tool_choice.mode is ToolChoiceMode.REQUIRED and not output_format.writes_json_calls:
        return BareCallParser(split(output_format, ()), FORCED, names, new_call_id)
    if output_format.tool_call_style is ToolCallStyle.LLAMA:
        return BareCallParser(split(output_format, ()), LLAMA, names, new_call_id)
    return split(output_format, offered, new_call_id)
