"""Which parser reads a completion: decided by the model's output format and by what the client asked for. Pure."""

from __future__ import annotations

from collections.abc import Callable

from periscope.core import OutputFormat, OutputSpec, ToolCallStyle
from periscope.parsing.bare_calls import FORCED, LLAMA, LLAMA_CONSTRAINED, BareCallParser
from periscope.parsing.contracts import Parser, new_call_id
from periscope.parsing.harmony import HarmonyParser
from periscope.parsing.stream import OutputParser


def parser_for(
    output_format: OutputFormat, spec: OutputSpec = OutputSpec(), new_call_id: Callable[[], str] = new_call_id
) -> Parser:
    """A fresh parser for one completion.

    Args:
        output_format: of this completion (`OutputSpec.format_for`).
        spec: without tools, and with `ToolChoiceMode.NONE`, nothing is a call.
    """
    tools, has_plain_answer = spec.offered, spec.response_format is not None
    is_constrained, style = output_format.is_constrained, output_format.tool_call_style
    split = HarmonyParser if style is ToolCallStyle.HARMONY else OutputParser
    if style is ToolCallStyle.LLAMA:
        dialect = LLAMA_CONSTRAINED if is_constrained else LLAMA
    elif style is ToolCallStyle.ARRAY:
        dialect = FORCED
    else:
        return split(output_format, tools, new_call_id, has_plain_answer=has_plain_answer)
    inner = split(output_format, (), has_plain_answer=is_constrained or has_plain_answer)
    names = frozenset(tool.name for tool in tools)
    goes_on = output_format.continues_text and not output_format.starts_in_reasoning
    return BareCallParser(
        inner, dialect, names, new_call_id, has_plain_answer=has_plain_answer, continues_answer=goes_on
    )
