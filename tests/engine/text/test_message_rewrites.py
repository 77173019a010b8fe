"""Rewrites of messages for chat templates with limits."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from periscope.engine.text.message_rewrites import (
    in_call_order,
    nine_letter_ids,
    one_call_each,
    text_before_calls,
    text_with_result,
    tools_as_text,
    user_first,
    with_result_names,
    with_system_text,
    without_volatile_lines,
)
from periscope.engine.text.template_probes import REWRITES, attempts


def calling(*call_ids: str, text: str = "", **more: Any) -> dict[str, Any]:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "add", "arguments": {"a": 1}}} for call_id in call_ids
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls, **more}


def said(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


CHAT = [
    said("system", "A", name="K"),
    said("assistant", "L", name="M"),
    said("user", "B", name="N"),
    said("system", "C"),
    said("user", "D"),
    said("user", "E"),
    calling("c1", "c2", text="F", thinking="G"),
    said("tool", "H", tool_call_id="c2"),
    said("tool", "I", tool_call_id="c1"),
    said("tool", "O", tool_call_id="c9", name="P"),
    said("assistant", "J"),
]
TEXTS = "ABCDEFGHIJKLMNOP"


def test_attempts_go_from_unchanged_messages_to_plain_turns() -> None:
    """The first attempt is the client's messages; in the last one user and assistant alternate in plain text."""
    tried = list(attempts(CHAT))
    assert tried[0] == CHAT
    assert [message["role"] for message in tried[-1]] == ["user", "assistant"] * 4
    assert not any("tool_calls" in message for message in tried[-1])
    assert all(text in str(tried[-1]) for text in TEXTS)
    assert all(one != other for one, other in itertools.pairwise(tried))


@pytest.mark.parametrize("number", range(len(REWRITES)))
def test_a_rewrite_loses_nothing_and_changes_nothing_in_place(number: int) -> None:
    """It keeps every text, leaves the client's messages untouched, and changes nothing when applied again."""
    before = str(CHAT)
    rewritten = REWRITES[number].apply(CHAT)
    assert str(CHAT) == before
    assert rewritten != CHAT
    assert all(text in str(rewritten) for text in TEXTS)
    assert REWRITES[number].apply(rewritten) == rewritten or REWRITES[number].apply is nine_letter_ids


def test_a_chat_that_needs_no_rewrite_is_tried_once() -> None:
    """No two attempts are equal."""
    assert list(attempts([said("user", "a"), said("assistant", "b")])) == [[said("user", "a"), said("assistant", "b")]]


def test_parallel_calls_are_put_one_after_the_other() -> None:
    """Each call is followed by its own result, and the text comes with the first; ids may repeat in later turns."""
    turn = [calling("x", "y", text="t"), said("tool", "2", tool_call_id="y"), said("tool", "1", tool_call_id="x")]
    expected = [
        calling("x", text="t"),
        said("tool", "1", tool_call_id="x"),
        calling("y"),
        said("tool", "2", tool_call_id="y"),
    ]
    assert one_call_each([*turn, said("user", "n"), *turn]) == [*expected, said("user", "n"), *expected]


def test_results_are_named_after_their_calls() -> None:
    """A tool result keeps the name that the client gave it."""
    named = with_result_names(
        [calling("x", "y"), said("tool", "1", tool_call_id="x"), said("tool", "2", tool_call_id="y", name="own")]
    )
    assert [message.get("name") for message in named] == [None, "add", "own"]


def test_volatile_lines_are_removed_anywhere_in_a_system_message() -> None:
    """A removed line leaves no gap, and a message that is nothing else is removed as a whole."""
    line = "X-Anthropic-Billing-Header: cch=1;"
    chat = [said("system", f"a\n{line}\nb"), said("system", line), said("user", line)]
    assert without_volatile_lines(chat) == [said("system", "a\nb"), said("user", line)]


def test_results_are_in_the_order_of_their_calls() -> None:
    """A template without ids pairs calls and results by their order; a result without a call comes last."""
    one, two, other = (
        said("tool", text, tool_call_id=call_id) for text, call_id in (("1", "x"), ("2", "y"), ("3", ""))
    )
    turn = [calling("x", "y"), other, two, one, said("user", "n")]
    assert in_call_order(turn) == [calling("x", "y"), one, two, other, said("user", "n")]


def test_a_text_is_added_to_the_system_message() -> None:
    """The text is appended to the first system message, or becomes a system message."""
    assert with_system_text([said("system", "a"), said("user", "b")], "t")[0] == said("system", "a\n\nt")
    assert with_system_text([said("user", "b")], "t") == [said("system", "t"), said("user", "b")]
    assert with_system_text([], "t") == [said("system", "t")]


def test_text_beside_calls_goes_before_them_or_into_their_result() -> None:
    """The text moves into the first result; calls without a result keep their text."""
    turn = [calling("x", text="t"), said("tool", "1", tool_call_id="x")]
    assert text_before_calls(turn) == [said("assistant", "t"), calling("x"), turn[1]]
    told = "(The assistant said with this call: t)\n\n1"
    assert text_with_result(turn) == [calling("x"), said("tool", told, tool_call_id="x")]
    assert text_with_result(turn[:1]) == turn[:1]


def test_only_calls_and_results_become_text() -> None:
    """Other neighbouring turns are unchanged; results are joined with the user's next message."""
    users = [said("user", "a"), said("user", "b")]
    told = tools_as_text([*users, calling("x"), said("tool", "1", tool_call_id="x"), said("user", "c")])
    call = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'
    response = "<tool_response>\n1\n</tool_response>\n\nc"
    assert told == [*users, said("assistant", call), said("user", response)]


def test_an_empty_user_message_precedes_an_assistant_that_begins() -> None:
    """It is added only before an assistant message that comes first after the system messages."""
    begun = [said("system", "s"), said("assistant", "a")]
    assert user_first(begun) == [said("system", "s"), said("user", ""), said("assistant", "a")]
    assert user_first([said("user", "u"), said("assistant", "a")]) == [said("user", "u"), said("assistant", "a")]
