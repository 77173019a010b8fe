"""Output items of tools on MCP servers, and their events. Pure but for the ids drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from periscope.api.responses.output_items import COMPLETED, Delta, OutputItem
from periscope.core import CallOutcome, FilePart, ImagePart, ServerCallDelta, TextPart, new_id

if TYPE_CHECKING:
    from periscope.api.responses.mcp_tools import ServersTool
    from periscope.core import JSONObject, Part, ServerCallStart, ToolCall, ToolResult, ToolsListed

FAILED: Final = "failed"
#: Errors of JSON-RPC and of MCP, by what became of a call. What a tool reports itself has no code.
_CODES: Mapping[CallOutcome, int] = {
    CallOutcome.BAD_ARGUMENTS: -32602,
    CallOutcome.BLOCKED: -32600,
    CallOutcome.UNKNOWN_TOOL: -32601,
    CallOutcome.UNREACHABLE: -32000,
    CallOutcome.TIMED_OUT: -32001,
}


class McpCallItem(OutputItem):
    """A call of a tool on an MCP server: it is written, run beside others, and then has what it gave."""

    def __init__(self, start: ServerCallStart, tool: ServersTool) -> None:
        super().__init__(new_id("mcp_"))
        self.call_id = start.id
        self._tool = tool
        self._approval_id = start.approval_id
        self._arguments: list[str] = []
        self._given: JSONObject = {"output": None, "error": None}

    def takes(self, delta: Delta) -> bool:
        return isinstance(delta, ServerCallDelta) and delta.id == self.call_id

    def value(self, status: str) -> JSONObject:
        return {
            "id": self.id,
            "type": "mcp_call",
            "status": status,
            "approval_request_id": self._approval_id,
            "arguments": "".join(self._arguments),
            "name": self._tool.name,
            "server_label": self._tool.server,
            **self._given,
        }

    def begun(self) -> Iterator[JSONObject]:
        yield {"type": "response.mcp_call.in_progress"}

    def grown(self, delta: Delta) -> Iterator[JSONObject]:
        assert isinstance(delta, ServerCallDelta)  # noqa: S101  # as `takes` says
        self._arguments.append(delta.arguments)
        yield {"type": "response.mcp_call_arguments.delta", "delta": delta.arguments}

    def ended(self) -> Iterator[JSONObject]:
        yield {"type": "response.mcp_call_arguments.done", "arguments": "".join(self._arguments)}

    def gave(self, result: ToolResult) -> str:
        """Takes the result; returns the status with which the item ends."""
        if result.outcome is CallOutcome.DONE:
            self._given = {"output": words_of(result.parts), "error": None} | _shown(result.parts)
            return COMPLETED
        self._given = {"output": None, "error": _error(result)} | _shown(result.parts)
        return FAILED


def list_item(item_id: str, listed: ToolsListed) -> JSONObject:
    """The tools of a server; none and an error if it could not be asked."""
    tools = [
        {
            "name": each.tool.name,
            "description": each.tool.description or None,
            "input_schema": each.tool.parameters,
            "annotations": each.annotations,
        }
        for each in listed.tools
    ]
    item: JSONObject = {"id": item_id, "type": "mcp_list_tools", "server_label": listed.server, "tools": tools}
    return item | {"error": listed.error}


def approval_item(call: ToolCall, tool: ServersTool) -> JSONObject:
    """A call that is run when the client agrees in the next request."""
    return {
        "id": new_id("mcpr_"),
        "type": "mcp_approval_request",
        "arguments": call.arguments,
        "name": tool.name,
        "server_label": tool.server,
    }


def words_of(parts: Sequence[Part]) -> str:
    """What a tool gave, as text: a line for each picture and file in it."""
    return "\n".join(part.text if isinstance(part, TextPart) else _named(part) for part in parts)


def _named(part: Part) -> str:
    if isinstance(part, ImagePart):
        head, _, data = part.url.partition(",")
        return f"[{head.removeprefix('data:').partition(';')[0] or 'an image'}, {len(data) * 3 // 4} bytes]"
    return f"[file {part.name or 'without a name'}]" if isinstance(part, FilePart) else "[an image]"


def _error(result: ToolResult) -> JSONObject:
    words = words_of(result.parts)
    code = _CODES.get(result.outcome)
    if code is None:
        return {"type": "mcp_tool_execution_error", "content": [{"type": "text", "text": words}]}
    return {"type": "mcp_protocol_error", "code": code, "message": words}


def _shown(parts: Sequence[Part]) -> JSONObject:
    """The parts as input parts, if the text does not say all of them: so later turns see pictures, too."""
    if all(isinstance(part, TextPart) for part in parts):
        return {}
    return {"periscope": {"output": [_input_part(part) for part in parts]}}


def _input_part(part: Part) -> JSONObject:
    match part:
        case TextPart(text):
            return {"type": "input_text", "text": text}
        case ImagePart(url):
            return {"type": "input_image", "image_url": url}
        case FilePart(name=name, url=url):
            return {"type": "input_file", "filename": name, "file_data": url}
    raise AssertionError("a result holds texts, images and files")
