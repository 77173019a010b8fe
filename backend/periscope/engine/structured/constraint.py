"""Constraint: an `OutputSpec` compiled for one model, as a grammar and the format in which its output is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.core import OutputFormat
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
