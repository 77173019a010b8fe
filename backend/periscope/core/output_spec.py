"""The form of output that a client asks for, and how a model writes it: one decision for grammar and parser."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from periscope.core.tools import AnswerGrammar, OutputFormat, ResponseFormat, Tool, ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest


class ConstraintKind(StrEnum):
    """What a completion is constrained to, apart from reasoning before it."""

    NONE = "none"
    JSON = "json"
    """JSON of the response format, or calls where tools may be called."""
    GRAMMAR = "grammar"
    """A text of the response format's grammar, or calls where tools may be called."""
    TEXT = "text"
    """Anything, but calls fit their tools."""
    CALLS = "calls"
    """One or more calls."""


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """Tools, whether to call them, and the form of the answer.

    Attributes:
        tools: offered to the model; empty when the client's `tool_choice` is none.
        response_format: the answer must fit it, unless it is a tool call; None = free text.

    Raises:
        InvalidRequest: tools are offered beside a whole grammar: the text that it allows might begin as a call does,
            which can be excluded from a regular expression, and not from a grammar.
    """

    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice = ToolChoice()
    response_format: ResponseFormat | AnswerGrammar | None = None

    def __post_init__(self) -> None:
        answer = self.response_format
        if isinstance(answer, AnswerGrammar) and answer.grammar and self.offered:
            param = answer.param
            raise InvalidRequest(
                f"`{param}` cannot stand beside `tools`: what it allows might begin as a call does. Leave one out, set "
                "`tool_choice` to none, or send a regular expression or choices in its place.",
                param=param,
            )

    @property
    def offered(self) -> tuple[Tool, ...]:
        """Tools whose calls are read."""
        return () if self.tool_choice.mode is ToolChoiceMode.NONE else self.tools

    def callable_by(self, output_format: OutputFormat) -> tuple[Tool, ...]:
        """Tools a grammar has to know: a model without tool calls of its own can only be forced to call."""
        can_call = output_format.has_tools or self.tool_choice.mode is ToolChoiceMode.REQUIRED
        return tuple(filter(self.tool_choice.allows, self.offered)) if can_call else ()

    def kind_for(self, output_format: OutputFormat) -> ConstraintKind:
        """What the completions of such a model are constrained to."""
        if self.tool_choice.mode is ToolChoiceMode.REQUIRED:
            return ConstraintKind.CALLS
        if isinstance(self.response_format, AnswerGrammar):
            return ConstraintKind.GRAMMAR
        if self.response_format is not None:
            return ConstraintKind.JSON
        if not self.tools:
            return ConstraintKind.NONE
        tools = self.callable_by(output_format)
        is_bound = any(tool.is_strict for tool in tools) or 0 < len(tools) < len(self.offered)
        return ConstraintKind.TEXT if is_bound else ConstraintKind.NONE

    def format_for(self, output_format: OutputFormat) -> OutputFormat:
        """How such a model marks reasoning and calls in completions of this kind.

        Args:
            output_format: the model's own.
        """
        is_free = self.kind_for(output_format) is ConstraintKind.NONE
        return output_format if is_free or not self.callable_by(output_format) else output_format.constrained()
