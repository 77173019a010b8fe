"""The channels of gpt-oss: which text is answer, reasoning or a call."""

from __future__ import annotations

import pytest

from periscope.core import OutputFormat, ReasoningDelta, TextDelta, Tool
from periscope.parsing.harmony import HarmonyParser
from tests.parsing.events import Event, called, events_from, numbered_ids

TOOLS = (Tool("time"),)


def parser_of(tools: tuple[Tool, ...] = TOOLS, *, starts_in_reasoning: bool = False) -> HarmonyParser:
    return HarmonyParser(OutputFormat(starts_in_reasoning=starts_in_reasoning), tools, numbered_ids())


CALL = "<|channel|>commentary to=functions.time <|constrain|>json<|message|>"

TRANSCRIPTS: list[tuple[str, list[Event]]] = [
    (
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Yes.<|return|>",
        [ReasoningDelta("Hm."), TextDelta("Yes.")],
    ),
    # A preamble and an answer, two trains of thought: parted, not glued.
    (
        "<|channel|>commentary<|message|>First.<|end|><|start|>assistant<|channel|>final<|message|>Then.",
        [TextDelta("First.\n\nThen.")],
    ),
    (
        "<|channel|>analysis<|message|>A<|end|><|start|>assistant<|channel|>analysis<|message|>B",
        [ReasoningDelta("A\n\nB")],
    ),
    # No end marker between two messages.
    (
        "<|channel|>analysis<|message|>Hm.<|channel|>final<|message|>Yes.",
        [ReasoningDelta("Hm."), TextDelta("Yes.")],
    ),
    # A constrained model writes no channel.
    ('{"to": "assistant"}', [TextDelta('{"to": "assistant"}')]),
    ("<|channel|>analysis<|message|>Hm.<|end|>\n[1]", [ReasoningDelta("Hm."), TextDelta("[1]")]),
    # Words that a header could begin with.
    ("assistant", [TextDelta("assistant")]),
    (" to=do: rest", [TextDelta(" to=do: rest")]),
    ("assistants help<|end|>", [TextDelta("assistants help")]),
    (300 * "a", [TextDelta(300 * "a")]),
    ("to=" + 300 * "a", [TextDelta("to=" + 300 * "a")]),
    # Calls.
    (f'{CALL}{{"a": 1}}<|call|>', [called(0, "time", '{"a": 1}')]),
    (f"{CALL}{{}}", [called(0, "time", "{}")]),
    (f"{CALL}<|call|>", [called(0, "time", "{}")]),
    (f"{CALL}", []),
    (f"{CALL}not json<|call|>", [TextDelta("not json")]),
    ("assistant to=functions.time<|channel|>analysis<|message|>{}<|end|>", [called(0, "time", "{}")]),
    ("<|channel|>commentary to=browser.open code<|message|>{}", [called(0, "browser.open", "{}")]),
    # Cut off inside a header.
    ("<|channel|>final<|mess", []),
    ("<|channel|>final<|message|>Yes.<|end|><|start|>assist", [TextDelta("Yes.")]),
]


@pytest.mark.parametrize(("text", "expected"), TRANSCRIPTS)
def test_what_the_channels_hold(text: str, expected: list[Event]) -> None:
    """The text of each channel becomes the right kind of event, and no control token or header is shown."""
    assert events_from(parser_of(), [text]) == expected
    assert events_from(parser_of(), text) == expected


def test_text_streams() -> None:
    """Text is passed on at once, except what may become a control token."""
    parser = parser_of()
    assert parser.feed("<|channel|>final<|message|>Hel") == [TextDelta("Hel")]
    assert parser.feed("lo <|e") == [TextDelta("lo ")]
    assert parser.feed("x") == [TextDelta("<|ex")]


def test_reasoning_may_be_opened_by_the_template() -> None:
    """A prompt that ends in the analysis channel makes the first text reasoning."""
    events = events_from(parser_of(starts_in_reasoning=True), ["Hm.<|end|><|start|>assistant<|message|>Yes."])
    assert events == [ReasoningDelta("Hm."), TextDelta("Yes.")]


@pytest.mark.parametrize(
    ("in_reasoning", "expected"),
    [(False, [TextDelta(" assistant to")]), (True, [ReasoningDelta(" assistant to")])],
)
def test_a_message_may_go_on(*, in_reasoning: bool, expected: list[Event]) -> None:
    """What looks like the rest of a header is text in the middle of a message."""
    form = OutputFormat(starts_in_reasoning=in_reasoning, continues_text=True)
    assert events_from(HarmonyParser(form, TOOLS, numbered_ids()), " assistant to") == expected


def test_without_tools_a_call_is_text() -> None:
    """A client that offered no tools gets the call as text."""
    assert events_from(parser_of(()), [f'{CALL}{{"a": 1}}<|call|>']) == [TextDelta('{"a": 1}')]
