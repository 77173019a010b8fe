"""Tools that Anthropic defines and the client runs: requests name only their type, so their schemas stand here. Data.

Source: the pages of Anthropic's API on the bash, text editor and memory tools, and the types of its SDK.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from periscope.core import Tool

if TYPE_CHECKING:
    from periscope.core import JSONObject


def _text(description: str) -> JSONObject:
    return {"type": "string", "description": description}


def _commands(*names: str) -> JSONObject:
    return {"type": "string", "enum": list(names)}


#: Arguments that the editor and the memory have in common.
_EDITING: JSONObject = {
    "path": _text("File or directory."),
    "view_range": {
        "type": "array",
        "items": {"type": "integer"},
        "description": "For view: the first and the last line to show; the first line is 1, and -1 is the last one.",
    },
    "file_text": _text("For create: the text of the file."),
    "old_str": _text("For str_replace: the text to replace, which must stand in the file exactly once."),
    "new_str": _text("For str_replace: the text to put in its place."),
    "insert_line": {"type": "integer", "description": "For insert: the line to insert after; 0 is the beginning."},
    "insert_text": _text("For insert: the text to insert."),
}

#: Type -> the tool, under the name that Anthropic gives it.
CLIENT_TOOLS: Mapping[str, Tool] = {
    "bash_20250124": Tool(
        "bash",
        "Runs a command in a bash session, which keeps its state from call to call.",
        {
            "type": "object",
            "properties": {
                "command": _text("The command to run."),
                "restart": {"type": "boolean", "description": "True to restart the session, without a command."},
            },
        },
    ),
    "text_editor_20250728": Tool(
        "str_replace_based_edit_tool",
        "Views, creates and edits text files.",
        {
            "type": "object",
            "properties": {"command": _commands("view", "create", "str_replace", "insert"), **_EDITING},
            "required": ["command", "path"],
        },
    ),
    "memory_20250818": Tool(
        "memory",
        "Views and edits files below /memories, which last from one conversation to the next.",
        {
            "type": "object",
            "properties": {
                "command": _commands("view", "create", "str_replace", "insert", "delete", "rename"),
                **_EDITING,
                "old_path": _text("For rename: the path now."),
                "new_path": _text("For rename: the path afterwards."),
            },
            "required": ["command"],
        },
    ),
}
