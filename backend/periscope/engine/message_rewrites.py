"""What is done to messages so that a chat template takes them: a table of rewrites, from harmless to drastic. Pure.

Works on messages in the shape templates read (dicts of role, content, tool_calls, ...); never changes one in place.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from periscope.core import JSONObject

Messages: TypeAlias = list[JSONObject]

#: Lines of system prompts that carry numbers of the single call, of no use to a model: they would make every prompt
#: differ from its first tokens on, and no cached prefix would ever fit. Claude Code begins its prompt with
#: `x-anthropic-billing-header: cc_version=2.1.3.abc; cc_entrypoint=cli; cch=12345;`.
_VOLATILE_LINE = re.compile(r"^x-anthropic-billing-header:.*\n?", re.MULTILINE | re.IGNORECASE)


def without_volatile_lines(messages: Sequence[JSONObject]) -> Messages:
    """System messages lose lines that change with every call, and go when nothing is left of them."""
    kept = []
    for message in messages:
        if message["role"] == "system" and _VOLATILE_LINE.search(message["content"]):
            content = _VOLATILE_LINE.sub("", message["content"]).lstrip("\n")
            if content:
                kept.append({**message, "content": content})
        else:
            kept.append(message)
    return kept


def with_result_names(messages: Sequence[JSONObject]) -> Messages:
    """Tool results name the tool, which clients leave to the call and some templates insist on."""
    names: dict[str, str] = {}
    named = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        name = names.get(message.get("tool_call_id", ""))
        named.append({"name": name, **message} if name else message)
    return named


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One way to make messages easier on a template.

    Attributes:
        apply: messages that need no change come out equal.
        probe: a conversation that ends in a message or call with the word `PROBE_WORD`. A template that renders it
            without that word loses such messages silently, so that they are always rewritten.
        is_alone: tried on its own only; the later rewrites do not build on it.
    """

    apply: Callable[[Messages], Messages]
    probe: Messages = field(default_factory=list)
    is_alone: bool = False


def attempts(messages: Messages) -> Iterator[Messages]:
    """The messages as they stand, then with more and more of the rewrites; what was tried is not tried again."""
    yield messages
    for rewrite in REWRITES:
        rewritten = rewrite.apply(messages)
        if rewritten != messages:
            yield rewritten
        if not rewrite.is_alone:
            messages = rewritten


def _arguments_as_text(messages: Messages) -> Messages:
    """For templates that add a call's arguments to a string (DeepSeek R1)."""
    return _with_calls(messages, lambda call: _with_function(call, arguments=_json(call["function"]["arguments"])))


def _nine_letter_ids(messages: Messages) -> Messages:
    """For templates that take ids of nine letters and digits only (Mistral)."""
    renamed = _with_calls(messages, lambda call: {**call, "id": _short_id(call["id"])})
    return [
        {**message, "tool_call_id": _short_id(message["tool_call_id"])} if message.get("tool_call_id") else message
        for message in renamed
    ]


def _one_call_each(messages: Messages) -> Messages:
    """Parallel calls one after the other, each followed by its result (Llama 3, gpt-oss)."""
    split: Messages = []
    placed: set[int] = set()
    for at, message in enumerate(messages):
        calls = message.get("tool_calls", ())
        if len(calls) < 2:
            split += [message] if at not in placed else []
            continue
        for number, call in enumerate(calls):
            first = message if number == 0 else {"role": "assistant", "content": ""}
            split.append({**first, "tool_calls": [call]})
            results = (result for result in _results_after(messages, at) if result not in placed)
            own = next((result for result in results if messages[result].get("tool_call_id") == call["id"]), None)
            if own is not None:
                placed.add(own)
                split.append(messages[own])
    return split


def _results_after(messages: Messages, at: int) -> Iterator[int]:
    """Where the tool results stand that follow a message at once."""
    return itertools.takewhile(lambda result: messages[result]["role"] == "tool", range(at + 1, len(messages)))


def _reasoning_before_text(messages: Messages) -> Messages:
    """For templates that refuse reasoning and text beside a call (gpt-oss)."""
    return [
        {
            **{key: value for key, value in message.items() if key not in REASONING_KEYS},
            "content": _joined(_reasoning(message), message["content"]),
        }
        if message.get("tool_calls") and message["content"] and _reasoning(message)
        else message
        for message in messages
    ]


def _one_system_message(messages: Messages) -> Messages:
    """All system messages as the first message."""
    system = [message for message in messages if message["role"] == "system"]
    if not system or messages[: len(system)] == system[:1]:
        return messages
    content = _joined(*(message["content"] for message in system))
    return [{**system[0], "content": content}, *(message for message in messages if message["role"] != "system")]


def _neighbours_joined(messages: Messages) -> Messages:
    """Neighbouring messages of one role as one, so that user and assistant take turns."""
    joined: Messages = []
    for message in messages:
        last = joined[-1] if joined else None
        if last and last["role"] == message["role"] in ("user", "assistant") and not _has_calls(last, message):
            joined[-1] = {**last, "content": _joined(last["content"], message["content"])}
        else:
            joined.append(message)
    return joined


def _tools_as_text(messages: Messages) -> Messages:
    """Calls and results as text of assistant and user, for templates that know no tools."""
    return _neighbours_joined([_tool_text(message) for message in messages])


def _tool_text(message: JSONObject) -> JSONObject:
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{message['content']}\n</tool_response>"}
    if not message.get("tool_calls"):
        return message
    calls = [
        f"<tool_call>\n{_json({key: call['function'][key] for key in ('name', 'arguments')})}\n</tool_call>"
        for call in message["tool_calls"]
    ]
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    return {**plain, "content": _joined(message["content"], "\n".join(calls))}


def _system_as_user(messages: Messages) -> Messages:
    """System messages as the beginning of what the user says (Gemma 2)."""
    return _neighbours_joined(
        [{**message, "role": "user"} if message["role"] == "system" else message for message in messages]
    )


#: Keys under which templates look for a message's reasoning.
REASONING_KEYS = ("reasoning_content", "thinking")


def _reasoning(message: JSONObject) -> str:
    return next((message[key] for key in REASONING_KEYS if message.get(key)), "")


def _has_calls(*messages: JSONObject) -> bool:
    return any(message.get("tool_calls") for message in messages)


def _with_calls(messages: Messages, change: Callable[[JSONObject], JSONObject]) -> Messages:
    return [
        {**message, "tool_calls": [change(call) for call in message["tool_calls"]]}
        if message.get("tool_calls")
        else message
        for message in messages
    ]


def _with_function(call: JSONObject, **changes: str) -> JSONObject:
    return {**call, "function": {**call["function"], **changes}}


def _json(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _short_id(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)


#: A word in no template's own text, and the tool that the probes call.
PROBE_WORD = "Zwoelfkreuzer"
PROBE_TOOL: JSONObject = {
    "type": "function",
    "function": {"name": "probe", "description": "Asks.", "parameters": {"type": "object", "properties": {}}},
}


def _called(*arguments: str, result: str = "known") -> Messages:
    """A conversation with one call for each argument, and their results."""
    calls = [
        {"id": f"call{number:05}", "type": "function", "function": {"name": "probe", "arguments": {"a": argument}}}
        for number, argument in enumerate(arguments)
    ]
    results = [{"role": "tool", "name": "probe", "tool_call_id": call["id"], "content": result} for call in calls]
    return [_USER, {"role": "assistant", "content": "", "tool_calls": calls}, *results]


_USER: JSONObject = {"role": "user", "content": "Ask."}
_ASSISTANT: JSONObject = {"role": "assistant", "content": "Well."}
_SYSTEM: JSONObject = {"role": "system", "content": PROBE_WORD}

REWRITES = (
    Rewrite(_arguments_as_text, is_alone=True),
    Rewrite(_nine_letter_ids),
    Rewrite(_one_system_message, [_USER, _ASSISTANT, _SYSTEM, _USER]),
    Rewrite(_one_call_each, _called("first", PROBE_WORD)),
    Rewrite(_reasoning_before_text),
    Rewrite(_neighbours_joined),
    Rewrite(_tools_as_text, _called("first", result=PROBE_WORD)),
    Rewrite(_system_as_user, [_SYSTEM, _USER]),
)
