"""Rewrites of messages for chat templates with limits. Pure; `template_probes` decides when each is applied.

Messages are in the shape templates read (dicts of role, content, tool_calls, ...) and are never changed in place.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from periscope.core import JSONObject
from periscope.engine.text.tool_text import arguments_text, calls_text, result_text

Messages: TypeAlias = list[JSONObject]

#: Lines of system prompts with values that change in every request and mean nothing to a model. Every prompt would
#: differ in its first tokens, so that no cached prefix would ever match. Claude Code starts its prompt with
#: `x-anthropic-billing-header: cc_version=2.1.3.abc; cc_entrypoint=cli; cch=12345;`.
_VOLATILE_LINE = re.compile(r"^x-anthropic-billing-header:.*\n?", re.MULTILINE | re.IGNORECASE)


def without_volatile_lines(messages: Sequence[JSONObject]) -> Messages:
    """Remove the lines of system messages that change with every request, and messages that are empty then."""
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
    """Add the tool's name to tool results: clients state it in the call only, and some templates require it."""
    names: dict[str, str] = {}
    named = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        name = names.get(message.get("tool_call_id", ""))
        named.append({"name": name, **message} if name else message)
    return named


def in_call_order(messages: Sequence[JSONObject]) -> Messages:
    """Sort the results that follow parallel calls in the order of the calls, because most templates write no ids."""
    ordered = list(messages)
    for at, message in enumerate(messages):
        places = {call["id"]: place for place, call in enumerate(message.get("tool_calls", ()))}
        if len(places) > 1:
            results = [ordered[result] for result in _results_after(ordered, at)]
            results.sort(key=lambda result: places.get(result.get("tool_call_id", ""), len(places)))
            ordered[at + 1 : at + 1 + len(results)] = results
    return ordered


def with_system_text(messages: Sequence[JSONObject], text: str) -> Messages:
    """Append the text to the first system message, or add a system message."""
    if not messages or messages[0]["role"] != "system":
        return [{"role": "system", "content": text}, *messages]
    return [{**messages[0], "content": _joined(messages[0]["content"], text)}, *messages[1:]]


def names_as_text(role: str, messages: Messages) -> Messages:
    """Put the `name` of messages of this role before their text."""
    return [_unnamed(message) if message["role"] == role else message for message in messages]


def result_names_as_text(messages: Messages) -> Messages:
    """Put the `name` of a tool result before its text where it differs from the name of the call."""
    names: dict[str, str] = {}
    told = []
    for message in messages:
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls", ())}
        is_known = message["role"] != "tool" or message.get("name") == names.get(message.get("tool_call_id", ""))
        told.append(message if is_known else _unnamed(message))
    return told


def arguments_as_text(messages: Messages) -> Messages:
    """Write arguments as JSON text, for templates that concatenate them with a string (DeepSeek R1)."""
    return _with_calls(messages, lambda call: _with_function(call, arguments=_text_of_arguments(call)))


def text_before_calls(messages: Messages) -> Messages:
    """Move the text beside calls into a message before them, for templates that drop it (Llama 3)."""
    split: Messages = []
    for message in messages:
        if message.get("tool_calls") and message["content"]:
            split.append({"role": "assistant", "content": message["content"]})
            split.append({**message, "content": ""})
        else:
            split.append(message)
    return split


def text_with_result(messages: Messages) -> Messages:
    """Move the text beside calls into their first result, for templates that allow no further message (Mistral)."""
    moved = list(messages)
    for at, message in enumerate(messages):
        result = next(_results_after(messages, at), None)
        if message.get("tool_calls") and message["content"] and result is not None:
            said = f"(The assistant said with this call: {message['content']})"
            moved[at] = {**message, "content": ""}
            moved[result] = {**messages[result], "content": _joined(said, messages[result]["content"])}
    return moved


def nine_letter_ids(messages: Messages) -> Messages:
    """Replace call ids by nine letters and digits, for templates that accept no others (Mistral)."""
    renamed = _with_calls(messages, lambda call: {**call, "id": _short_id(call["id"])})
    return [
        {**message, "tool_call_id": _short_id(message["tool_call_id"])} if message.get("tool_call_id") else message
        for message in renamed
    ]


def one_call_each(messages: Messages) -> Messages:
    """Split parallel calls into single calls, each followed by its result (Llama 3, gpt-oss)."""
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
    """Indices of the tool results that directly follow a message."""
    return itertools.takewhile(lambda result: messages[result]["role"] == "tool", range(at + 1, len(messages)))


def reasoning_before_text(messages: Messages) -> Messages:
    """Move reasoning into the text of messages with calls, for templates that refuse both beside a call (gpt-oss)."""
    return [
        {
            **{key: value for key, value in message.items() if key not in REASONING_KEYS},
            "content": _joined(_reasoning(message), message["content"]),
        }
        if message.get("tool_calls") and message["content"] and _reasoning(message)
        else message
        for message in messages
    ]


def one_system_message(messages: Messages) -> Messages:
    """Merge all system messages into one, at the front."""
    system = [message for message in messages if message["role"] == "system"]
    if not system or messages[: len(system)] == system[:1]:
        return messages
    if len(system) > 1:
        system = [_unnamed(message) for message in system]
    content = _joined(*(message["content"] for message in system))
    return [{**system[0], "content": content}, *(message for message in messages if message["role"] != "system")]


def user_first(messages: Messages) -> Messages:
    """Insert an empty user message before a leading assistant message, for templates that require a user first."""
    num_system = sum(1 for _ in itertools.takewhile(lambda message: message["role"] == "system", messages))
    if [message["role"] for message in messages[num_system : num_system + 1]] != ["assistant"]:
        return messages
    return [*messages[:num_system], {"role": "user", "content": ""}, *messages[num_system:]]


def neighbours_joined(messages: Messages) -> Messages:
    """Merge adjacent messages of the same role, so that user and assistant alternate."""
    joined: Messages = []
    for message in messages:
        last = joined[-1] if joined else None
        if last and last["role"] == message["role"] in ("user", "assistant") and not _has_calls(last, message):
            joined[-1] = _both(last, message)
        else:
            joined.append(message)
    return joined


def _both(one: JSONObject, other: JSONObject) -> JSONObject:
    if one.get("name") != other.get("name"):
        one, other = _unnamed(one), _unnamed(other)
    keys = {key for key in REASONING_KEYS if one.get(key) or other.get(key)}
    reasoning = {key: _joined(one.get(key, ""), other.get(key, "")) for key in keys}
    return {**one, "content": _joined(one["content"], other["content"]), **reasoning}


def tools_as_text(messages: Messages) -> Messages:
    """Write calls and results as text of assistant and user, for templates without tools.

    Only messages that become text are merged with adjacent messages of the same role.
    """
    told: Messages = []
    was_told = False
    for message in result_names_as_text(messages):
        text = _tool_text(message)
        is_told = text is not message
        if told and (was_told or is_told) and told[-1]["role"] == text["role"]:
            told[-1], was_told = _both(told[-1], text), True
        else:
            told.append(text)
            was_told = is_told
    return told


def _tool_text(message: JSONObject) -> JSONObject:
    if message["role"] == "tool":
        return {"role": "user", "content": result_text(message["content"])}
    if not message.get("tool_calls"):
        return message
    plain = {key: value for key, value in message.items() if key != "tool_calls"}
    functions = [call["function"] for call in message["tool_calls"]]
    return {**plain, "content": _joined(message["content"], calls_text(functions))}


def system_as_user(messages: Messages) -> Messages:
    """Turn system messages into user messages and merge adjacent ones, for templates without that role (Gemma 2)."""
    return neighbours_joined(
        [{**_unnamed(message), "role": "user"} if message["role"] == "system" else message for message in messages]
    )


#: Keys under which templates read a message's reasoning.
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


def _text_of_arguments(call: JSONObject) -> str:
    return arguments_text(call["function"]["arguments"])


def _unnamed(message: JSONObject) -> JSONObject:
    """Move the name of a message into its text."""
    if not message.get("name"):
        return message
    plain = {key: value for key, value in message.items() if key != "name"}
    return {**plain, "content": f"{message['name']}: {message['content']}"}


def _short_id(call_id: str) -> str:
    return hashlib.sha256(call_id.encode()).hexdigest()[:9]


def _joined(*texts: str) -> str:
    return "\n\n".join(text for text in texts if text)
