"""Which parser reads a completion: decided by the model's output format and by what the client asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from periscope.core import OutputFormat, ToolCallStyle, ToolChoice, ToolChoiceMode, holds_calls
from periscope.parsing.bare_calls import FORCED, LLAMA, LLAMA_HELD, BareCallParser
from periscope.parsing.contracts import Parser, new_call_id
from periscope.parsing.harmony import HarmonyParser
from periscope.parsing.stream import OutputParser

if TYPE_CHECKING:
    from periscope.core import ResponseFormat, Tool


def parser_for(
    output_format: OutputFormat,
    tools: tuple[Tool, ...],
    tool_choice: ToolChoice = ToolChoice(),
    new_call_id: Callable[[], str] = new_call_id,
    *,
    response_format: ResponseFormat | None = None,
) -> Parser:
    """A fresh parser for one completion.

    Calls that a grammar holds (`holds_calls`) are read as it writes them (`OutputFormat.enforced`). Without tools, and
    with `ToolChoiceMode.NONE`, nothing is a call.
    """
    offered = () if tool_choice.mode is ToolChoiceMode.NONE else tools
    names = frozenset(tool.name for tool in offered)
    is_held, has_plain_answer = holds_calls(offered, tool_choice, response_format), response_format is not None
    if is_held:
        output_format = output_format.enforced()
    split = HarmonyParser if output_format.tool_call_style is ToolCallStyle.HARMONY else OutputParser
    if output_format.tool_call_style is ToolCallStyle.LLAMA:
        dialect = LLAMA_HELD if is_held else LLAMA
    elif is_held and tool_choice.mode is ToolChoiceMode.REQUIRED and not output_format.has_tools:
        dialect = FORCED
    else:
        return split(output_format, offered, new_call_id, has_plain_answer=has_plain_answer)
    inner = split(output_format, (), has_plain_answer=is_held or has_plain_answer)
    return BareCallParser(inner, dialect, names, new_call_id, has_plain_answer=has_plain_answer)
