"""Sessions of thirty turns as real programs send them, recorded from the programs: each turn computes only what is new.

Recorded in November 2026 from Claude Code 2.1.197, opencode 1.18.33 and Codex 0.171.0, which were run against this
server. Long texts and most tools are left out; every field is there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import httpx
import pytest
from PIL import Image

from tests.e2e.drawing import circle, data_url, picture, square

Turns: TypeAlias = "list[dict[str, Any]]"

NUM_TURNS = 30
#: The template's beginning of an answer, which is other text once the answer is there.
SLACK_TOKENS = 8
COLOURS = ("red", "green", "blue", "orange", "purple", "yellow")
PATH = {"type": "object", "properties": {"file_path": {"type": "string"}}, "required": ["file_path"]}


@dataclass(frozen=True)
class Program:
    """How one program asks.

    Attributes:
        body: the request of a turn.
        looked: what the program adds to the turns when its tool has read a picture.
    """

    path: str
    headers: dict[str, str]
    body: Callable[[Turns, int], dict[str, Any]]
    looked: Callable[[Image.Image, int], Turns]
    told: Callable[[dict[str, Any]], tuple[str, int, int]]


def claude_code_body(turns: Turns, number: int) -> dict[str, Any]:
    """The newest message is marked for the cache, so the mark moves on in each turn; a line of billing changes."""
    *older, last = turns
    content = [{"type": "text", "text": last["content"], "cache_control": {"type": "ephemeral"}}]
    mark = {"type": "ephemeral"}
    return {
        "model": "claude-opus-4-8",
        "messages": [*CLAUDE_CODE_OPENING, *older, {**last, "content": content}],
        "system": [
            {"type": "text", "text": f"x-anthropic-billing-header: cc_version=2.1.197.{number}; cch={number:05};"},
            {"type": "text", "text": "You are a Claude agent.", "cache_control": mark},
            {"type": "text", "text": "\nYou are an interactive agent.", "cache_control": mark},
        ],
        "tools": [
            {"name": "Read", "description": "Reads a file.", "input_schema": PATH},
            {"type": "web_search_20250305", "name": "web_search", "max_uses": 8},
        ],
        "metadata": {"user_id": '{"device_id":"e80e","account_uuid":"","session_id":"5a9b"}'},
        "max_tokens": 4,
        "temperature": 0,
        "thinking": {"type": "adaptive"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": False,
    }


CLAUDE_CODE_OPENING: Turns = [
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "<system-reminder>\nToday's date is 2026-11-29.\n</system-reminder>\n"},
            {"type": "text", "text": "Hello!"},
        ],
    },
    {"role": "system", "content": "Available agent types for the Agent tool: none."},
    {"role": "assistant", "content": [{"type": "text", "text": "Hello!"}]},
]


def claude_code_looked(image: Image.Image, number: int) -> Turns:
    """A result of the tool is a user's message that holds nothing else."""
    call = {"type": "tool_use", "id": f"call_{number}", "name": "Read", "input": {"file_path": "/a.png"}}
    source = {"type": "base64", "data": data_url(image).partition(",")[2], "media_type": "image/png"}
    result = {"tool_use_id": call["id"], "type": "tool_result", "content": [{"type": "image", "source": source}]}
    return [
        {"role": "assistant", "content": [call]},
        {"role": "user", "content": [result]},
        {"role": "assistant", "content": [{"type": "text", "text": "I see."}]},
    ]


def claude_code_told(answer: dict[str, Any]) -> tuple[str, int, int]:
    """The answer's text, the prompt's tokens, and those of them that were cached."""
    usage = answer["usage"]
    cached = usage["cache_read_input_tokens"]
    return "".join(block["text"] for block in answer["content"]), usage["input_tokens"] + cached, cached


def opencode_body(turns: Turns, _: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "max_tokens": 4,
        "temperature": 0,
        "messages": [{"role": "system", "content": "You are opencode."}, *turns],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "read",
                    "description": "Reads a file.",
                    "parameters": {"$schema": "https://json-schema.org/draft/2020-12/schema", **PATH},
                },
            }
        ],
        "tool_choice": "auto",
        "stream": False,
    }


def opencode_looked(image: Image.Image, number: int) -> Turns:
    """The picture that a tool has read stands in a message of the user's behind the tool's."""
    function = {"name": "read", "arguments": '{"file_path":"/a.png"}'}
    call = {"id": f"call_{number}", "type": "function", "function": function}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "Image read successfully"},
        {"role": "user", "content": [{"type": "text", "text": "Attached media from tool result:"}, picture(image)]},
        {"role": "assistant", "content": "I see."},
    ]


def opencode_told(answer: dict[str, Any]) -> tuple[str, int, int]:
    """As `claude_code_told`."""
    usage = answer["usage"]
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return answer["choices"][0]["message"]["content"], usage["prompt_tokens"], cached


def codex_body(turns: Turns, number: int) -> dict[str, Any]:
    return {
        "model": "demo",
        "stream": False,
        "input": [
            codex_message("developer", "input_text", "You are a coding agent."),
            codex_message("user", "input_text", "<environment_context>\n  <shell>bash</shell>\n</environment_context>"),
            *(codex_item(turn) for turn in turns),
        ],
        "tools": [
            {"type": "function", "name": "view_image", "description": "Look.", "strict": False, "parameters": PATH}
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning": {"summary": "auto"},
        "store": False,
        "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01a22617",
        "client_metadata": {"turn_id": str(number), "session_id": "01a22617"},
        "max_output_tokens": 4,
        "temperature": 0,
    }


def codex_item(turn: dict[str, Any]) -> dict[str, Any]:
    """A turn as an item; those of its tool are items already."""
    if "type" in turn:
        return turn
    kind = "output_text" if turn["role"] == "assistant" else "input_text"
    return codex_message(turn["role"], kind, turn["content"])


def codex_message(role: str, kind: str, text: str) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


def codex_looked(image: Image.Image, number: int) -> Turns:
    """The picture is the call's output."""
    call = {"type": "function_call", "name": "view_image", "arguments": '{"file_path": "/a.png"}'}
    output = [{"type": "input_image", "image_url": data_url(image), "detail": "high"}]
    return [
        {**call, "status": "completed", "call_id": f"call_{number}"},
        {"type": "function_call_output", "call_id": f"call_{number}", "output": output},
        {"role": "assistant", "content": "I see."},
    ]


def codex_told(answer: dict[str, Any]) -> tuple[str, int, int]:
    """As `claude_code_told`."""
    usage = answer["usage"]
    parts = [part["text"] for item in answer["output"] if item["type"] == "message" for part in item["content"]]
    return "".join(parts), usage["input_tokens"], usage["input_tokens_details"]["cached_tokens"]


PROGRAMS = {
    "Claude Code": Program(
        path="/v1/messages?beta=true",
        headers={
            "anthropic-version": "2023-06-01",
            "anthropic-beta": "claude-code-20250219,context-1m-2025-08-07,mid-conversation-system-2026-04-07",
            "user-agent": "claude-cli/2.1.197 (external, sdk-cli)",
            "x-claude-code-session-id": "5a9b424c",
            "x-app": "cli",
        },
        body=claude_code_body,
        looked=claude_code_looked,
        told=claude_code_told,
    ),
    "opencode": Program(
        path="/v1/chat/completions",
        headers={"user-agent": "opencode/1.18.33 ai-sdk/provider-utils/4.0.23", "x-session-affinity": "ses_1"},
        body=opencode_body,
        looked=opencode_looked,
        told=opencode_told,
    ),
    "Codex": Program(
        path="/v1/responses",
        headers={"originator": "codex_exec", "user-agent": "codex_exec/0.171.0", "session-id": "01a22617"},
        body=codex_body,
        looked=codex_looked,
        told=codex_told,
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_each_of_thirty_turns_computes_only_what_is_new(client: httpx.Client, name: str) -> None:
    """With a picture in every fifth turn, which the program's own tool has read."""
    program, turns, known = PROGRAMS[name], list[dict[str, Any]](), 0
    for number in range(NUM_TURNS):
        if number % 5 == 2:
            shape = circle if number % 2 else square
            turns += [{"role": "user", "content": "Read a.png."}, *program.looked(shape(COLOURS[number // 5]), number)]
        turns.append({"role": "user", "content": f"And {number}?"})
        reply = client.post(program.path, json=program.body(turns, number), headers=program.headers)
        assert reply.status_code == 200, reply.text
        text, num_prompt, num_cached = program.told(reply.json())
        assert num_cached >= known, number
        known = num_prompt - SLACK_TOKENS
        turns.append({"role": "assistant", "content": text or "Yes."})
    assert known > NUM_TURNS * SLACK_TOKENS
