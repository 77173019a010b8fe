"""`functions` and `function_call`, which `tools` and `tool_choice` have replaced, wire to core. Pure.

A client that sends them gets its one call as `function_call`, and sends it back as one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.api.openai.tool_choice import function_tool
from periscope.api.tool_names import known_name, refuse_repeated_names
from periscope.api.toolset import Toolset
from periscope.api.wording import kind_of
from periscope.core import ToolChoice, ToolChoiceMode
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire


def decode_functions(wire: ChatCompletionWire) -> tuple[Toolset, ToolChoice] | None:
    """The functions as tools, and whether to call one; None if the request has neither field.

    Raises:
        InvalidRequest: there are tools, too, two functions have the same name, or the choice is of no known kind.
    """
    if not wire.functions and wire.function_call in (None, "none", "auto"):
        return None
    if wire.tools:
        name = "functions" if wire.functions else "function_call"
        raise InvalidRequest(f"`{name}` cannot stand beside `tools`, which replaced it: leave it out.", param=name)
    tools = tuple(map(function_tool, wire.functions or ()))
    refuse_repeated_names((f"functions[{i}].name", tool.name) for i, tool in enumerate(tools))
    if not tools:
        raise InvalidRequest("`function_call` demands a call, but there are no `functions`.", param="function_call")
    known = [tool.name for tool in tools]
    match wire.function_call:
        case None | "auto":
            choice = ToolChoice(is_parallel=False)
        case "none":
            choice = ToolChoice(ToolChoiceMode.NONE, is_parallel=False)
        case {"name": str(name)}:
            name = known_name(name, known, "function_call.name")
            choice = ToolChoice(ToolChoiceMode.REQUIRED, name, is_parallel=False)
        case other:
            raise InvalidRequest(
                "`function_call` must be `none`, `auto` or an object with the `name` of a function, got "
                f"{kind_of(other)}.",
                param="function_call",
            )
    return Toolset(tools), choice
