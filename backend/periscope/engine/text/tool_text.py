"""Tools, calls and results as plain text, for chat templates that have no place for them. Pure.

The format is that of Hermes, which Qwen's templates use too and most models were trained on. Calls that a model writes
after this text are parsed as `ToolCallStyle.HERMES`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

from periscope.core import JSONObject

_BEFORE_TOOLS = """# Tools

You may call one or more of these functions to help the user. Each is described by a JSON object within <tools></tools>:
<tools>"""
_AFTER_TOOLS = """</tools>

To call a function, write a JSON object with its name and its arguments within <tool_call></tool_call>:
<tool_call>
{"name": <name of the function>, "arguments": <object with its arguments>}
</tool_call>"""


def tools_text(schemas: Iterable[JSONObject]) -> str:
    """The tools and how to call them, as text for the system message."""
    return "\n".join([_BEFORE_TOOLS, *(json.dumps(schema, ensure_ascii=False) for schema in schemas), _AFTER_TOOLS])


def calls_text(functions: Sequence[JSONObject]) -> str:
    """Calls (name and arguments) as text, one per block."""
    return "\n".join(f"<tool_call>\n{_call(function)}\n</tool_call>" for function in functions)


def result_text(content: str) -> str:
    """The result of a call as text."""
    return f"<tool_response>\n{content}\n</tool_response>"


def arguments_text(arguments: object) -> str:
    """Arguments as JSON; a string is returned unchanged."""
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)


def described_by_schema(tool: JSONObject) -> JSONObject:
    """The tool with its parameters in its description, for templates that leave parameters out."""
    function = tool["function"]
    parameters = json.dumps(function["parameters"], ensure_ascii=False)
    told = f"Parameters as a JSON schema: {parameters}"
    description = f"{function['description']}\n{told}" if function["description"] else told
    return {**tool, "function": {**function, "description": description}}


def _call(function: JSONObject) -> str:
    return json.dumps({key: function[key] for key in ("name", "arguments")}, ensure_ascii=False)
