"""A valid body for every POST route, with as many of its fields as go together: what fuzzing starts from."""

from __future__ import annotations

from typing import Any

from tests.e2e.drawing import circle, data_url, picture, user

_PICTURE = data_url(circle("red", 32))
_BASE64 = _PICTURE.partition(",")[2]
_FILE = {"filename": "notes.txt", "file_data": "data:text/plain;base64,aGVsbG8="}
_SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 8, "pattern": "^[a-z]+$"},
        "days": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 9}, "maxItems": 2},
        "unit": {"enum": ["c", "f"]},
        "where": {"anyOf": [{"$ref": "#/$defs/place"}, {"type": "null"}]},
    },
    "$defs": {"place": {"type": "object", "properties": {"x": {"type": "number", "multipleOf": 0.5}}}},
    "required": ["city"],
    "additionalProperties": False,
}
_FUNCTION = {"name": "get_weather", "description": "The weather.", "parameters": _SCHEMA, "strict": True}
_TOOL = {"type": "function", "function": _FUNCTION}


def custom(name: str, syntax: str, definition: str) -> dict[str, Any]:
    form = {"type": "grammar", "grammar": {"syntax": syntax, "definition": definition}}
    return {"type": "custom", "custom": {"name": name, "description": "Does it.", "format": form}}


_TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
    user("What colour is the circle?", picture(circle("red", 32)), {"type": "file", "file": _FILE}),
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}],
    },
    {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "Sunny."}]},
    {"role": "user", "name": "me", "content": "Hello!"},
]
_CUSTOM_CALL = {"id": "c2", "type": "custom", "custom": {"name": "code", "input": 'a "b"'}}
_CUSTOM_RESULT = {"role": "tool", "tool_call_id": "c2", "content": "Done."}
_HELLO = [{"role": "user", "content": "Hello!"}]
_BEGUN = [*_HELLO, {"role": "assistant", "content": "I am"}]
_CHATS: tuple[dict[str, Any], ...] = (
    {
        "model": "demo",
        "messages": _TURNS,
        "tools": [_TOOL],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
        "parallel_tool_calls": False,
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_completion_tokens": 12,
        "temperature": 0.7,
        "top_p": 0.9,
        "seed": 1,
        "user": "u",
        "metadata": {"a": "b"},
        "store": False,
    },
    {
        "messages": _HELLO,
        "response_format": {"type": "json_schema", "json_schema": {"name": "w", "strict": True, "schema": _SCHEMA}},
        "max_tokens": 12,
        "n": 2,
        "logprobs": True,
        "top_logprobs": 2,
        "logit_bias": {"5": -100, "7": 3.5},
        "top_k": 5,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
    },
    {
        "messages": _HELLO,
        "stop": ["a", "b"],
        "stop_token_ids": [3, 4],
        "min_tokens": 1,
        "ignore_eos": True,
        "max_tokens": 4,
        "reasoning_effort": "low",
        "thinking_budget": 16,
        "reasoning": {"effort": "low", "max_tokens": 8, "enabled": True},
        "chat_template_kwargs": {"enable_thinking": False, "thinking_budget": 4},
        "functions": [],
        "modalities": ["text"],
        "stream": False,
    },
    {
        "messages": [*_HELLO, {"role": "assistant", "tool_calls": [_CUSTOM_CALL]}, _CUSTOM_RESULT],
        "tools": [_TOOL, custom("code", "regex", "[A-F]{3}|x"), {"type": "web_search"}],
        "tool_choice": {"type": "custom", "custom": {"name": "code"}},
        "stream": True,
        "max_tokens": 12,
    },
    {
        "messages": _HELLO,
        "tools": [_TOOL, custom("draw", "lark", 'start: "a" X?\nX: /[0-9]+/')],
        "tool_choice": {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "required", "tools": [{"type": "custom", "custom": {"name": "draw"}}]},
        },
        "max_tokens": 12,
    },
    {
        "messages": [
            *_HELLO,
            {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
            {"role": "function", "name": "get_weather", "content": "Sunny."},
        ],
        "functions": [_FUNCTION],
        "function_call": {"name": "get_weather"},
        "max_tokens": 12,
    },
    {"messages": _BEGUN, "continue_final_message": True, "add_generation_prompt": False, "max_tokens": 4},
    {"messages": [*_HELLO, {"role": "assistant", "content": "I", "prefix": True}], "max_tokens": 4},
    {"messages": _HELLO, "guided_regex": "[ab]{1,3}(c|d)?", "max_tokens": 4},
    {"messages": _HELLO, "guided_choice": ["yes", "no"], "max_tokens": 4},
    {"messages": _HELLO, "grammar": 'root ::= ("a" | "b")+ [0-9]', "max_tokens": 4},
    {"messages": _HELLO, "structured_outputs": {"json": _SCHEMA}, "max_tokens": 4},
)
_COMPLETIONS: tuple[dict[str, Any], ...] = (
    {
        "model": "demo",
        "prompt": ["Once upon", "A time"],
        "n": 2,
        "max_tokens": 4,
        "echo": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "seed": 1,
        "stop": ["a"],
        "user": "u",
    },
    {"prompt": [5, 6, 7], "max_tokens": 4, "logprobs": 2, "logit_bias": {"5": -100}, "min_tokens": 1},
    {"prompt": [[5, 6], [7]], "max_tokens": 4, "guided_regex": "[ab]{1,3}(c|d)?"},
    {"prompt": ["Hello!", "Bye"], "echo": True, "logprobs": 1, "max_tokens": 0, "best_of": 1, "suffix": ""},
)
_EMBEDDINGS: tuple[dict[str, Any], ...] = (
    {"model": "embedder", "input": ["Once upon", "a time"], "encoding_format": "float", "dimensions": 8, "user": "u"},
    {"input": "Once upon a time", "encoding_format": "base64", "prompt_name": "query", "truncate_prompt_tokens": -1},
    {"input": [5, 6, 7]},
    {"input": [[5, 6], [7]], "truncate_prompt_tokens": 3},
)
_ANTHROPIC_IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": _BASE64}}
_ANTHROPIC_PROMPT: dict[str, Any] = {
    "model": "claude-opus-4-8",
    "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "Look."}, _ANTHROPIC_IMAGE]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "bern"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [_ANTHROPIC_IMAGE]}]},
        {"role": "system", "content": "The user is in a hurry."},
        {
            "role": "user",
            "content": [
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}},
                {"type": "text", "text": "Go on."},
            ],
        },
    ],
    "tools": [
        {"name": "get_weather", "description": "The weather.", "input_schema": _SCHEMA, "strict": True},
        {"type": "bash_20250124", "name": "bash"},
        {"type": "web_search_20250305", "name": "web_search"},
    ],
    "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
    "thinking": {"type": "enabled", "budget_tokens": 1024},
}
_MESSAGES: tuple[dict[str, Any], ...] = (
    {
        **_ANTHROPIC_PROMPT,
        "max_tokens": 12,
        "stream": True,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 5,
        "stop_sequences": ["a"],
        "metadata": {"user_id": "u"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    },
    {
        "model": "demo",
        "max_tokens": 12,
        "messages": _HELLO,
        "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": _SCHEMA}},
    },
    {"model": "demo", "max_tokens": 4, "messages": _BEGUN},
)
_ITEMS = [
    {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
    {
        "role": "user",
        "content": [
            {"type": "input_text", "text": "Look."},
            {"type": "input_image", "image_url": _PICTURE, "detail": "auto"},
            {"type": "input_file", **_FILE},
        ],
    },
    {
        "type": "reasoning",
        "id": "rs_1",
        "summary": [{"type": "summary_text", "text": "Hm."}],
        "content": [{"type": "reasoning_text", "text": "Hm."}],
        "encrypted_content": "psr1.AAAA",
    },
    {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "I see.", "annotations": []}]},
    {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": "{}", "namespace": "mcp__a__"},
    {"type": "function_call_output", "call_id": "c1", "output": [{"type": "input_image", "image_url": _PICTURE}]},
    {"type": "custom_tool_call", "call_id": "c2", "name": "patch", "input": "*** Begin"},
    {"type": "custom_tool_call_output", "call_id": "c2", "output": "Done."},
    {"type": "local_shell_call", "call_id": "c3", "status": "completed", "action": {"type": "exec", "command": ["ls"]}},
    {"type": "local_shell_call_output", "id": "c3", "output": "a.txt"},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
    {"type": "mcp_call", "id": "mcp_1", "server_label": "a", "name": "b", "arguments": "{}", "output": "c"},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": _BASE64},
    {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "more"}]},
    {"type": "ghost_snapshot", "ghost_commit": {}},
    {"role": "user", "content": "Go on."},
]
_RESPONSES_PROMPT: dict[str, Any] = {
    "model": "demo",
    "instructions": "Be brief.",
    "input": _ITEMS,
    "tools": [
        {"type": "function", **_FUNCTION},
        {
            "type": "custom",
            "name": "patch",
            "format": {"type": "grammar", "syntax": "lark", "definition": "start: /a/"},
        },
        {"type": "namespace", "name": "mcp__a__", "tools": [{"type": "function", "name": "get_weather"}]},
        {"type": "web_search", "external_web_access": False},
    ],
    "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "get_weather"}]},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low", "summary": "auto"},
    "truncation": "auto",
}
_RESPONSES: tuple[dict[str, Any], ...] = (
    {
        **_RESPONSES_PROMPT,
        "stream": True,
        "store": False,
        "include": ["reasoning.encrypted_content", "message.output_text.logprobs"],
        "top_logprobs": 2,
        "max_output_tokens": 12,
        "max_tool_calls": 3,
        "metadata": {"a": "b"},
        "prompt_cache_key": "k",
        "service_tier": "auto",
    },
    {
        "input": "Hello!",
        "text": {"format": {"type": "json_schema", "name": "w", "strict": True, "schema": _SCHEMA}, "verbosity": "low"},
        "max_output_tokens": 12,
        "temperature": 0.5,
        "top_p": 0.9,
        "stop": ["a"],
        "background": False,
        "previous_response_id": None,
    },
)
_CALL = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "tools/call",
    "params": {
        "name": "describe_image",
        "arguments": {"image": _PICTURE, "question": "What?"},
        "_meta": {"progressToken": "t"},
    },
}
_HANDSHAKE = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}}
#: path template -> the bodies. A route that is here without a body takes none, and gets one all the same.
SEEDS: dict[str, tuple[Any, ...]] = {
    "/v1/chat/completions": _CHATS,
    "/v1/completions": _COMPLETIONS,
    "/v1/responses": _RESPONSES,
    "/v1/responses/input_tokens": (_RESPONSES_PROMPT,),
    "/v1/responses/{response_id}/cancel": ({},),
    "/v1/embeddings": _EMBEDDINGS,
    "/v1/messages": _MESSAGES,
    "/v1/messages/count_tokens": (_ANTHROPIC_PROMPT,),
    "/tokenize": (
        {"model": "demo", "prompt": "Hello!", "add_special_tokens": True, "return_token_strs": True},
        {"content": "Hello!", "add_special": True, "parse_special": True, "with_pieces": True},
        {"messages": _TURNS, "tools": [_TOOL], "add_generation_prompt": True},
    ),
    "/detokenize": ({"model": "demo", "tokens": [5, 6, 7]},),
    "/v1/models/select": ({"model": "demo", "wait": True},),
    "/api/models/load": ({"model": "demo", "wait": True},),
    "/api/models/unload": ({"model": "demo", "wait": True},),
    "/api/models/pin": ({"model": "demo", "pinned": False},),
    "/api/captions": ({"model": "demo", "images": [_PICTURE], "files": [_FILE], "describe": True},),
    "/mcp": (
        _CALL,
        {"jsonrpc": "2.0", "id": "a", "method": "initialize", "params": _HANDSHAKE},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {"cursor": "x"}},
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    ),
    "/api/downloads": ({"model": "no-such/model", "revision": "main", "only": True},),
    "/api/downloads/{download_id}/cancel": ({},),
    "/api/downloads/{download_id}/pause": ({},),
    "/api/downloads/{download_id}/resume": ({},),
    "/api/requests/{request_id}/answer_now": ({},),
    "/api/requests/{request_id}/cancel": ({},),
    "/api/server/reload": ({},),
}
#: Ends the server, whatever the body.
NOT_FUZZED = {"/api/server/shutdown"}
