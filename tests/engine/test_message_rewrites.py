"""What is done to messages so that templates take them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from periscope.engine.message_rewrites import REWRITES, attempts, with_result_names, without_volatile_lines


def calling(*call_ids: str, text: str = "", **more: Any) -> dict[str, Any]:
    calls = [
        {"id": call_id, "type": "function", "function": {"name": "add", "arguments": {"a": 1}}} for call_id in call_ids
    ]
    return {"role": "assistant", "content": text, "tool_calls": calls, **more}


def said(role: str, text: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": text, **more}


CHAT = [
    said("system", "A"),
    said("user", "B"),
    said("system", "C"),
    said("user", "D"),
    said("user", "E"),
    calling("c1", "c2", text="F", thinking="G"),
    said("tool", "H", tool_call_id="c2"),
    said("tool", "I", tool_call_id="c1"),
    said("assistant", "J"),
]
TEXTS = "ABCDEFGHIJ"


def test_attempts_go_from_the_messages_as_they_stand_to_plain_turns() -> None:
    """The first is what the client sent; in the last, user and assistant take turns in plain text."""
    tried = list(attempts(CHAT))
    assert tried[0] == CHAT
    assert [message["role"] for message in tried[-1]] == ["user", "assistant"] * 3
    assert not any("tool_calls" in message for message in tried[-1])
    assert all(text in str(tried[-1]) for text in TEXTS)
    assert all(one != other for one, other in itertools.pairwise(tried))


@pytest.mark.parametrize("number", range(len(REWRITES)))
def test_a_rewrite_loses_nothing_and_changes_nothing_in_place(number: int) -> None:
    """Every text is there afterwards, the client's messages are untouched, and a second time changes nothing."""
    before = str(CHAT)
    rewritten = REWRITES[number].apply(CHAT)
    assert str(CHAT) == before
    assert rewritten != CHAT
    assert all(text in str(rewritten) for text in TEXTS)
    assert REWRITES[number].apply(rewritten) == rewritten or number == 1  # ids of ids are other ids


def test_a_chat_that_needs_no_rewrite_is_tried_once() -> None:
    """No template is asked the same question twice."""
    assert list(attempts([said("user", "a"), said("assistant", "b")])) == [[said("user", "a"), said("assistant", "b")]]


def test_parallel_calls_are_put_one_after_the_other() -> None:
    """Each call is followed by its own result, and the text goes with the first; ids may come again in later turns."""
    turn = [calling("x", "y", text="t"), said("tool", "2", tool_call_id="y"), said("tool", "1", tool_call_id="x")]
    (rewrite,) = [rewrite for rewrite in REWRITES if rewrite.apply.__name__ == "_one_call_each"]
    expected = [
        calling("x", text="t"),
        said("tool", "1", tool_call_id="x"),
        calling("y"),
        said("tool", "2", tool_call_id="y"),
    ]
    assert rewrite.apply([*turn, said("user", "n"), *turn]) == [*expected, said("user", "n"), *expected]


def test_results_are_named_after_their_calls() -> None:
    """A name the client gave stays."""
    named = with_result_names(
        [calling("x", "y"), said("tool", "1", tool_call_id="x"), said("tool", "2", tool_call_id="y", name="own")]
    )
    assert [message.get("name") for message in named] == [None, "add", "own"]


def test_volatile_lines_go_wherever_they_stand_in_a_system_message() -> None:
    """A line in the middle goes without leaving a gap; a message of nothing else goes as a whole."""
    line = "X-Anthropic-Billing-Header: cch=1;"
    chat = [said("system", f"a\n{line}\nb"), said("system", line), said("user", line)]
    assert without_volatile_lines(chat) == [said("system", "a\nb"), said("user", line)]
