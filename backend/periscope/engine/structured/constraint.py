"""Constraint: an `OutputSpec` compiled for one model, as a grammar and the format in which its output is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from periscope.core import ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import OutputFormat, OutputSpec
    from periscope.engine.structured.matcher import Grammar


@dataclass(frozen=True, slots=True)
class Constraint:
    """The grammar of a completion and its output format, decided together so that they agree.

    Attributes:
        grammar: constrains the completion; None = unconstrained.
        output_format: how the completion marks reasoning and calls.
    """

    grammar: Grammar | None
    output_format: OutputFormat


def begun_answer(output: OutputSpec) -> InvalidRequest:
    """The error for a grammar beside a prefill: it would hold from the middle of the answer on, not for all of it."""
    told = output.response_format
    is_forced = output.tool_choice.mode is ToolChoiceMode.REQUIRED
    param = told.param if told is not None else "tool_choice" if is_forced else "tools"
    what = "`strict` tools" if param == "tools" else f"`{param}`"
    return InvalidRequest(
        f"{what} cannot be enforced for an answer that has already begun: the conversation ends with the assistant's "
        "own words. Leave one of the two out.",
        param=param,
    )
