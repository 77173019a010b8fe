"""What tools that run on this side give, and how their servers list them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from periscope.core.messages import Part, TextPart
from periscope.core.tools import JSONObject, Tool


class CallOutcome(StrEnum):
    """What became of a call. In all cases the model reads a result, which says what is wrong.

    Attributes:
        DONE: the tool ran.
        TOOL_ERROR: the tool ran and reported an error.
        BAD_ARGUMENTS: the arguments are no JSON object, or do not fit the function.
        BLOCKED: the tool may not be called here, or not any more; nothing ran.
        UNKNOWN_TOOL: there is no tool of this name; nothing ran.
        UNREACHABLE: the tool's server is not there, or its connection broke; the call may have run.
        TIMED_OUT: the tool's server took longer than its `timeout_s`; the call may have run.
    """

    DONE = "done"
    TOOL_ERROR = "tool_error"
    BAD_ARGUMENTS = "bad_arguments"
    BLOCKED = "blocked"
    UNKNOWN_TOOL = "unknown_tool"
    UNREACHABLE = "unreachable"
    TIMED_OUT = "timed_out"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gave.

    Attributes:
        parts: what the model reads: text, images and files.
    """

    parts: tuple[Part, ...]
    outcome: CallOutcome = CallOutcome.DONE

    @classmethod
    def told(cls, text: str, outcome: CallOutcome) -> ToolResult:
        """A sentence to the model instead of a result."""
        return cls((TextPart(text, is_data=True),), outcome)


@dataclass(frozen=True, slots=True)
class ListedTool:
    """A tool as its server lists it.

    Attributes:
        tool: under the server's own name for it.
        annotations: what the server says of its effects (`readOnlyHint`, `destructiveHint`), in the words of MCP.
    """

    tool: Tool
    annotations: JSONObject | None = None

    @property
    def is_read_only(self) -> bool:
        """The server says that it changes nothing."""
        return (self.annotations or {}).get("readOnlyHint") is True


def arguments_object(text: str) -> JSONObject | None:
    """Pure: the JSON object that a call's arguments are; None if they are none."""
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return read if isinstance(read, dict) else None
