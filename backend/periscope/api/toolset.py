"""The tools that a request of OpenAI's dialects offers, and what a choice among them means for the answer. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip, kind_of
from periscope.core import OutputSpec, ToolChoice, ToolChoiceMode

if TYPE_CHECKING:
    from periscope.api.custom_tools import CustomTool
    from periscope.core import AnswerGrammar, ResponseFormat, Tool


@dataclass(frozen=True, slots=True)
class Toolset:
    """The tools of one request.

    Attributes:
        offered: those that the client runs, as the model knows them.
        customs: the custom ones among them, by name.
        left_out: places of the others, which OpenAI would run or of which nothing is known here.
        has_servers: there are tools on MCP servers beside them.
    """

    offered: tuple[Tool, ...] = ()
    customs: Mapping[str, CustomTool] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    has_servers: bool = False

    def forced_custom(self, choice: ToolChoice) -> CustomTool | None:
        """The custom tool with a grammar that must be called, if no other can be: its text is the whole answer."""
        if choice.mode is not ToolChoiceMode.REQUIRED or self.has_servers:
            return None
        names = [tool.name for tool in self.offered if choice.allows(tool) and choice.name in (None, tool.name)]
        custom = self.customs.get(names[0]) if len(names) == 1 else None
        return custom if custom is not None and custom.grammar is not None else None

    def output(self, choice: ToolChoice, response_format: ResponseFormat | AnswerGrammar | None) -> OutputSpec:
        """The tools that the model is offered, and the form of its answer."""
        forced = self.forced_custom(choice)
        if forced is not None:
            return OutputSpec(self.offered, ToolChoice(ToolChoiceMode.NONE), forced.grammar)
        offered = () if choice.mode is ToolChoiceMode.NONE else self.offered
        return OutputSpec(offered, choice, response_format)

    def unenforced_formats(self, choice: ToolChoice) -> Iterator[str]:
        """The places of grammars that the model is told, and that its calls may miss."""
        if choice.mode is ToolChoiceMode.NONE:
            return
        for name, custom in self.customs.items():
            if custom.grammar is not None and self.forced_custom(choice) is not custom:
                yield f"{custom.grammar.param} (told to the model; enforced where `tool_choice` names {clip(name)})"


def refuse_hosted_alone(kinds: Sequence[str], tools: Toolset) -> None:
    """Check that a request with tools has one that the client runs: without it the answer would not be what is asked.

    Args:
        kinds: the types of the tools in the request.

    Raises:
        UnsupportedParameter: there are only tools that OpenAI runs.
    """
    if kinds and not tools.offered and not tools.has_servers:
        on_servers = " Tools on MCP servers are called for requests to /v1/responses." if "mcp" in kinds else ""
        raise UnsupportedParameter(
            f"`tools[0].type` is {kind_of(kinds[0])}. This server runs no tools of OpenAI's; send tools that the "
            f"client runs, of type `function` or `custom`.{on_servers}",
            param="tools[0].type",
        )
