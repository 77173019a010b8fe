"""The chat template, as Jinja for the tokenizer's folder and as the same bytes in Python for training.

ChatML with Hermes tool calls. Every message renders to the same bytes whatever follows it, so the prompt of a
turn is a prefix of the prompt of the next one.
"""

from __future__ import annotations

import json
from typing import Any

TOOLS_HEAD = "# Tools\n\nYou may call these functions:\n<tools>"
TOOLS_TAIL = (
    '\n</tools>\n\nTo call one, answer only:\n<tool_call>\n{"name": <name>, "arguments": <arguments>}\n</tool_call>'
)
CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}
{%- elif content is not none and content is defined -%}
{%- for part in content -%}
{%- if part is string -%}{{ part }}{%- elif part.text is defined -%}{{ part.text }}{%- endif -%}
{%- if not loop.last -%}{{ "\\n" }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{%- set first_is_system = messages and messages[0].role in ["system", "developer"] -%}
{%- if tools -%}
{{- "<|im_start|>system\\n" -}}
{%- if first_is_system -%}{{- text(messages[0].content) + "\\n\\n" -}}{%- endif -%}
{{- TOOLS_HEAD -}}
{%- for tool in tools -%}
{%- set function = tool.function if tool.function is defined else tool -%}
{{- "\\n{\\"name\\": " + function.name | tojson -}}
{%- if function.description -%}{{- ", \\"description\\": " + function.description | tojson -}}{%- endif -%}
{{- ", \\"parameters\\": {" -}}
{%- set parameters = function.parameters if function.parameters else {} -%}
{%- set properties = parameters["properties"] if parameters["properties"] else {} -%}
{%- for name in properties -%}
{{- name | tojson + ": " -}}
{%- set kind = properties[name]["type"] if properties[name]["type"] is string else "any" -%}
{%- set optional = parameters["required"] is defined and name not in parameters["required"] -%}
{{- (kind + " (optional)" if optional else kind) | tojson -}}
{%- if not loop.last -%}{{- ", " -}}{%- endif -%}
{%- endfor -%}
{{- "}}" -}}
{%- endfor -%}
{{- TOOLS_TAIL + "<|im_end|>\\n" -}}
{%- elif first_is_system -%}
{{- "<|im_start|>system\\n" + text(messages[0].content) + "<|im_end|>\\n" -}}
{%- endif -%}
{%- for message in messages -%}
{%- if loop.first and first_is_system -%}
{%- elif message.role in ["system", "developer"] -%}
{{- "<|im_start|>system\\n" + text(message.content) + "<|im_end|>\\n" -}}
{%- elif message.role == "assistant" -%}
{{- "<|im_start|>assistant\\n" -}}
{%- set said = text(message.content) -%}
{{- said -}}
{%- for call in message.tool_calls or [] -%}
{%- set function = call.function if call.function is defined else call -%}
{%- if said or not loop.first -%}{{- "\\n" -}}{%- endif -%}
{{- "<tool_call>\\n{\\"name\\": " + function.name | tojson + ", \\"arguments\\": " -}}
{%- if function.arguments is string -%}{{- function.arguments -}}
{%- else -%}{{- function.arguments | tojson -}}{%- endif -%}
{{- "}\\n</tool_call>" -}}
{%- endfor -%}
{{- "<|im_end|>\\n" -}}
{%- elif message.role == "tool" -%}
{{- "<|im_start|>user\\n<tool_response>\\n" + text(message.content) + "\\n</tool_response><|im_end|>\\n" -}}
{%- else -%}
{{- "<|im_start|>user\\n" + text(message.content) + "<|im_end|>\\n" -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\\n" -}}{%- endif -%}
""".replace("TOOLS_HEAD", json.dumps(TOOLS_HEAD)).replace("TOOLS_TAIL", json.dumps(TOOLS_TAIL))

Message = dict[str, Any]


def dump(value: object) -> str:
    """JSON as the template's ``tojson`` writes it."""
    return json.dumps(value, ensure_ascii=False)


def render_tool(tool: Message) -> str:
    """One tool as one line of the system prompt."""
    function = tool["function"]
    parameters = function["parameters"]
    required = parameters.get("required", parameters["properties"])
    types = {
        name: schema["type"] if name in required else f"{schema['type']} (optional)"
        for name, schema in parameters["properties"].items()
    }
    described = {"description": function["description"]} if function.get("description") else {}
    return dump({"name": function["name"], **described, "parameters": types})


def render_call(name: str, arguments: Message) -> str:
    """One tool call as the model writes it."""
    return f"<tool_call>\n{dump({'name': name, 'arguments': arguments})}\n</tool_call>"


def render(messages: list[Message], tools: list[Message]) -> list[tuple[str, bool]]:
    """Segments (text, whether the model says it) of a chat; joined they are the template's bytes."""
    segments: list[tuple[str, bool]] = []
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    if tools:
        lines = "".join("\n" + render_tool(tool) for tool in tools)
        lead = f"{system}\n\n" if system else ""
        segments.append((f"<|im_start|>system\n{lead}{TOOLS_HEAD}{lines}{TOOLS_TAIL}<|im_end|>\n", False))
    elif system:
        segments.append((f"<|im_start|>system\n{system}<|im_end|>\n", False))
    for message in messages[1:] if system else messages:
        if message["role"] == "assistant":
            calls = [
                render_call(c["function"]["name"], c["function"]["arguments"]) for c in message.get("tool_calls", [])
            ]
            said = "\n".join(part for part in (message["content"] or "", *calls) if part)
            segments += [("<|im_start|>assistant\n", False), (f"{said}<|im_end|>", True), ("\n", False)]
        elif message["role"] == "tool":
            body = f"<tool_response>\n{message['content']}\n</tool_response>"
            segments.append((f"<|im_start|>user\n{body}<|im_end|>\n", False))
        else:
            segments.append((f"<|im_start|>user\n{message['content']}<|im_end|>\n", False))
    return segments
