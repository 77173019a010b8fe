"""What an `OutputSpec` becomes for one model: a compiled grammar, and the format in which its output is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.core import OutputFormat
    from periscope.engine.structured.matcher import Grammar


@dataclass(frozen=True, slots=True)
class Constraint:
    """How a completion comes out.

    Attributes:
        grammar: what it must fit; None = it is free.
        output_format: how it marks reasoning and calls.
    """

    grammar: Grammar | None
    output_format: OutputFormat
