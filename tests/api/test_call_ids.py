"""Results find their calls."""

from __future__ import annotations

import time

import pytest

from periscope.api.call_ids import pair_calls
from periscope.core import Message, Role, ToolCall
from periscope.errors import InvalidRequest

USER = Message(Role.USER)


def calls(*named: str) -> Message:
    """An assistant's message with calls written `id:name`."""
    split = (each.partition(":") for each in named)
    return Message(Role.ASSISTANT, tool_calls=tuple(ToolCall(call_id, name, "{}") for call_id, _, name in split))


def result(call_id: str = "", name: str | None = None) -> Message:
    return Message(Role.TOOL, tool_call_id=call_id, name=name)


def ids(*messages: Message) -> list[str]:
    """All ids of a conversation after pairing, in order."""
    told: list[str] = []
    for message in pair_calls(messages):
        told += [call.id for call in message.tool_calls]
        told += [message.tool_call_id or ""] if message.role is Role.TOOL else []
    return told


@pytest.mark.parametrize(
    ("messages", "paired"),
    [
        ([calls("a:f", "b:g"), result("b"), result("a")], ["a", "b", "b", "a"]),
        ([calls("a:f", "b:g"), result(), result()], ["a", "b", "a", "b"]),
        ([calls("a:f", "b:g"), result("b"), result()], ["a", "b", "b", "a"]),
        ([calls("a:f", "b:g"), result(name="g"), result(name="f")], ["a", "b", "b", "a"]),
        ([calls("a:f", "b:f"), result(name="f"), result(name="f")], ["a", "b", "a", "b"]),
        ([calls("a:f"), result(name="other")], ["a", "a"]),
        ([calls("a:f", "a:g"), result("a"), result("a")], ["a", "call_0_1", "a", "call_0_1"]),
        ([calls(":f", ":g"), result(), result()], ["call_0_0", "call_0_1", "call_0_0", "call_0_1"]),
        ([calls("a:f"), result("gone")], ["a", "gone"]),
        ([result("gone")], ["gone"]),
        ([calls("a:f"), USER, result()], ["a", "a"]),
        ([calls("a:f"), calls("b:g"), result(), result()], ["a", "b", "a", "b"]),
        ([calls("a:f"), result("a"), calls("a:f"), result()], ["a", "a", "a", "a"]),
        ([calls("a:f"), USER, calls("b:f"), result()], ["a", "b", "b"]),
    ],
)
def test_every_result_finds_its_call(messages: list[Message], paired: list[str]) -> None:
    """By its id, else by the tool's name, else by order; ids that are good stay as they are."""
    assert ids(*messages) == paired


@pytest.mark.parametrize("messages", [[USER, result()], [calls("a:f"), result("a"), result()]])
def test_a_result_that_answers_nothing_is_refused(messages: list[Message]) -> None:
    """There is nothing that it could belong to."""
    with pytest.raises(InvalidRequest) as refused:
        pair_calls(messages)
    assert refused.value.param == f"messages[{len(messages) - 1}].tool_call_id"


def test_a_growing_conversation_keeps_its_ids() -> None:
    """What was paired once is paired the same in every later turn, so the prompt keeps its beginning."""
    whole = [USER, calls(":f", ":g"), result(), result(), USER, calls(":f"), result()]
    paired = pair_calls(whole)
    assert all(pair_calls(whole[:end]) == paired[:end] for end in range(len(whole) + 1))


@pytest.mark.parametrize("call_id", ["", "same"])
@pytest.mark.parametrize("answer", [result("same"), result(name="other")])
def test_thousands_of_calls_are_paired_at_once(call_id: str, answer: Message) -> None:
    """The work grows with the calls, not with their square: a body of the largest size stalls nobody."""
    num_calls = 20_000
    started = time.monotonic()
    told = ids(calls(*([f"{call_id}:f"] * num_calls)), *([answer] * num_calls))
    assert time.monotonic() - started < 30
    assert len(set(told[:num_calls])) == num_calls
