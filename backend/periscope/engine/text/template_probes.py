"""The table of rewrites for chat templates, from harmless to drastic, with the probes that tell which are needed. Pure.

A probe is a short conversation that contains a certain word. A template that renders the probe without the word
silently loses such messages.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from periscope.core import JSONObject
from periscope.engine.text.message_rewrites import (
    Messages,
    arguments_as_text,
    names_as_text,
    neighbours_joined,
    nine_letter_ids,
    one_call_each,
    one_system_message,
    reasoning_before_text,
    result_names_as_text,
    system_as_user,
    text_before_calls,
    text_with_result,
    tools_as_text,
    user_first,
)


@dataclass(frozen=True, slots=True)
class Rewrite:
    """One rewrite of messages for templates with a certain limit.

    Attributes:
        apply: the rewrite; messages that need no change come out equal.
        probes: conversations that contain `PROBE_WORD` once. If a template renders one of them without the word, and
            its rewritten form with it, the rewrite is always applied.
        is_alone: tried on its own only; later rewrites do not build on its result.
        is_tried: tried too when a template refuses messages, not only when it loses them.
        note: the template's limit, for the log.
    """

    apply: Callable[[Messages], Messages]
    probes: tuple[Messages, ...] = ()
    is_alone: bool = False
    is_tried: bool = True
    note: str = ""


def attempts(messages: Messages) -> Iterator[Messages]:
    """Yield the messages unchanged, then with more and more rewrites. Rewrites that change nothing are skipped."""
    yield messages
    for rewrite in REWRITES:
        if not rewrite.is_tried:
            continue
        rewritten = rewrite.apply(messages)
        if rewritten != messages:
            yield rewritten
        if not rewrite.is_alone:
            messages = rewritten


#: A word that no template contains. `PROBE_TOOL` is the tool that the probes call.
PROBE_WORD = "Zwoelfkreuzer"
PROBE_TOOL: JSONObject = {
    "type": "function",
    "function": {
        "name": "probe",
        "description": "Asks.",
        "parameters": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
    },
}


def called(*arguments: str, name: str = "probe", text: str = "", results: Sequence[str] = ()) -> Messages:
    """A conversation with one call per argument and their results, which default to "known"."""
    ids = [f"call{number:05}" for number in range(len(arguments))]
    calls = [
        {"id": call_id, "type": "function", "function": {"name": name, "arguments": {"a": argument}}}
        for call_id, argument in zip(ids, arguments, strict=True)
    ]
    answers = [
        {"role": "tool", "name": name, "tool_call_id": call_id, "content": result}
        for call_id, result in zip(ids, results or ["known"] * len(ids), strict=True)
    ]
    return [_USER, {"role": "assistant", "content": text, "tool_calls": calls}, *answers]


def _said(role: str, text: str = PROBE_WORD, **more: str) -> JSONObject:
    return {"role": role, "content": text, **more}


_USER, _ASSISTANT, _SYSTEM = _said("user", "Ask."), _said("assistant", "Well."), _said("system", "Be.")
_LATER = [_ASSISTANT, _USER]
_NAMED = {
    "user": [_said("user", "Ask.", name=PROBE_WORD), *_LATER],
    "assistant": [_USER, _said("assistant", "Well.", name=PROBE_WORD), _USER],
    "system": [_said("system", "Be.", name=PROBE_WORD), _USER],
}
_UNKNOWN_RESULT = [_said("tool", "known", tool_call_id="call00009", name=PROBE_WORD)]

#: In the order in which they are applied, from harmless to drastic.
REWRITES = (
    *(
        Rewrite(partial(names_as_text, role), (probe,), is_tried=False, note=f"writes no `name` of {role} messages")
        for role, probe in _NAMED.items()
    ),
    Rewrite(result_names_as_text, ([*called("first"), *_UNKNOWN_RESULT],), is_tried=False),
    Rewrite(arguments_as_text, (called(PROBE_WORD),), is_alone=True),
    Rewrite(nine_letter_ids),
    Rewrite(
        text_before_calls,
        (called("first", text=PROBE_WORD), [*called("first", text=PROBE_WORD), *_LATER]),
        is_tried=False,
        note="writes no text beside calls",
    ),
    Rewrite(
        text_with_result,
        (called("first", text=PROBE_WORD), [*called("first", text=PROBE_WORD), *_LATER]),
        is_tried=False,
        note="writes no text beside calls",
    ),
    Rewrite(
        one_system_message,
        (
            [_USER, _ASSISTANT, _said("system"), _USER],
            [_USER, _ASSISTANT, _USER, _said("system")],
            [_said("system"), _SYSTEM, _USER],
            [_SYSTEM, _said("system"), _USER],
        ),
        note="writes one system message, at the beginning",
    ),
    Rewrite(
        user_first,
        ([_said("assistant"), _USER], [_SYSTEM, _said("assistant"), _USER]),
        note="writes no answer before the first question",
    ),
    Rewrite(
        one_call_each,
        (called("first", PROBE_WORD), called("first", "second", results=["known", PROBE_WORD])),
        note="writes one call at a time",
    ),
    Rewrite(reasoning_before_text),
    Rewrite(
        neighbours_joined,
        (
            [_said("user"), _USER],
            [_USER, _said("user")],
            [_USER, _said("assistant"), *_LATER],
            [_USER, _ASSISTANT, _said("assistant"), _USER],
        ),
        note="writes one message a turn",
    ),
    Rewrite(
        tools_as_text,
        (
            called(PROBE_WORD),
            called("first", name=PROBE_WORD),
            called("first", results=[PROBE_WORD]),
            [*called("first", results=[PROBE_WORD]), *_LATER],
            [*called(PROBE_WORD), *_LATER],
        ),
        note="writes no calls or results",
    ),
    Rewrite(
        system_as_user,
        ([_said("system"), _USER], [_USER, _ASSISTANT, _said("system"), _USER]),
        note="has no system role",
    ),
)
