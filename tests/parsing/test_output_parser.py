"""The events that `OutputParser` makes of a model's output do not depend on how the text is cut."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import OutputFormat, ReasoningDelta, TextDelta, Tool, ToolCallDelta, ToolCallStart, ToolCallStyle
from periscope.parsing.stream import OutputParser
from tests.parsing.events import Event, called, cuts_of, events_from, numbered_ids

if TYPE_CHECKING:
    from collections.abc import Iterable


def parse_json(text: str, tools: list[dict[str, Any]]) -> Any:
    """Parses one JSON call between markers, as Hermes and Qwen write it."""
    del tools
    return json.loads(text)


def parse_mistral(text: str, tools: list[dict[str, Any]]) -> Any:
    """Parses any number of `name[ARGS]{...}` up to the end of the text."""
    del tools
    calls = [part.split("[ARGS]") for part in text.split("[TOOL_CALLS]")]
    return [{"name": name, "arguments": json.loads(arguments)} for name, arguments in calls]


QWEN = OutputFormat("<think>", "</think>", "<tool_call>", "</tool_call>", parse_json, ToolCallStyle.HERMES)
OPENED = replace(QWEN, starts_in_reasoning=True)
MISTRAL = OutputFormat("[THINK]", "[/THINK]", "[TOOL_CALLS]", "", parse_mistral)
PLAIN = OutputFormat()
TOOLS = (Tool("weather", "Now", {"type": "object"}), Tool("time"))


def events_of(pieces: Iterable[str], form: OutputFormat = QWEN, tools: tuple[Tool, ...] = TOOLS) -> list[Event]:
    """All events of one completion, with neighbours joined."""
    return events_from(OutputParser(form, tools, numbered_ids()), pieces)


WEATHER = '<tool_call>\n{"name": "weather", "arguments": {"city": "Kraków", "days": 2}}\n</tool_call>'
TIME = '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>'
WEATHER_ARGUMENTS = '{"city": "Kraków", "days": 2}'
BROKEN = '<tool_call>\n{"name": "weather", "arguments":\n</tool_call>'
MALFORMED = '<tool_call>\n{"name": "weather", "arguments": {"city": \n</tool_call>'

TRANSCRIPTS: dict[str, tuple[OutputFormat, str, list[Event]]] = {
    "text": (QWEN, "Hello 🌍, a < b and <thin ice>.", [TextDelta("Hello 🌍, a < b and <thin ice>.")]),
    "empty": (QWEN, "", []),
    "reasoning then text": (
        QWEN,
        "\n<think>\nLet me see.\n</think>\n\nIt rains.",
        [ReasoningDelta("Let me see.\n"), TextDelta("It rains.")],
    ),
    "empty reasoning": (QWEN, "<think>\n\n</think>\n\nYes.", [TextDelta("Yes.")]),
    "reasoning opened by the template": (
        OPENED,
        "\nHm.</think>\nYes.",
        [ReasoningDelta("Hm."), TextDelta("Yes.")],
    ),
    "an answer goes on": (replace(QWEN, continues_text=True), " well.\n", [TextDelta(" well.\n")]),
    "reasoning goes on": (
        replace(OPENED, continues_text=True),
        " and so</think>\n\nYes.",
        [ReasoningDelta(" and so"), TextDelta("Yes.")],
    ),
    "reasoning never closed": (QWEN, "<think>Hm </thi", [ReasoningDelta("Hm </thi")]),
    "reasoning closed but never opened": (QWEN, "Hm.</think>\nYes.", [TextDelta("Hm.</think>\nYes.")]),
    "reasoning about a tool call": (
        OPENED,
        f"{WEATHER}</think>{TIME}",
        [ReasoningDelta(WEATHER), called(0, "time", "{}")],
    ),
    "one call": (QWEN, f"\n{WEATHER}\n", [called(0, "weather", WEATHER_ARGUMENTS)]),
    "reasoning, text and two calls": (
        QWEN,
        f"<think>\nBoth.\n</think>\n\nI look.\n{WEATHER}\n{TIME}",
        [
            ReasoningDelta("Both.\n"),
            TextDelta("I look.\n"),
            called(0, "weather", WEATHER_ARGUMENTS),
            called(1, "time", "{}"),
        ],
    ),
    "call then text": (
        QWEN,
        f"{TIME}\nWait for it.",
        [called(0, "time", "{}"), TextDelta("\nWait for it.")],
    ),
    "unparsable call": (
        QWEN,
        f"\nSo:\n{BROKEN}\nSorry.",
        [TextDelta(f"\nSo:\n{BROKEN}\nSorry.")],
    ),
    "unparsable call between two": (
        QWEN,
        f"{TIME}\n{BROKEN}\n{WEATHER}",
        [called(0, "time", "{}"), TextDelta(f"\n{BROKEN}\n"), called(1, "weather", WEATHER_ARGUMENTS)],
    ),
    "end marker in a string": (
        QWEN,
        '<tool_call>\n{"name": "time", "arguments": {"in": "a \\"</tool_call>\\" </think>"}}\n</tool_call>',
        [called(0, "time", '{"in": "a \\"</tool_call>\\" </think>"}')],
    ),
    "quote that is never closed": (
        QWEN,
        f'<tool_call>\n{{"name": "time", "arguments": {{"in": "a}}}}\n</tool_call>{TIME}',
        [
            called(0, "time", '{"in": "a}}\n'),
            called(1, "time", "{}"),
        ],
    ),
    "malformed call": (
        QWEN,
        f"{MALFORMED}\n{TIME}",
        [called(0, "weather", '{"city": \n'), called(1, "time", "{}")],
    ),
    "brace that is never closed": (
        QWEN,
        '<tool_call>{"name": "time", "arguments": {"a": 1}</tool_call>Done.',
        [called(0, "time", '{"a": 1}'), TextDelta("Done.")],
    ),
    "call without its end marker": (
        QWEN,
        f"{TIME[: -len('</tool_call>')]}{WEATHER}",
        [called(0, "time", "{}"), called(1, "weather", WEATHER_ARGUMENTS)],
    ),
    "call without its last end marker": (QWEN, WEATHER[:-3], [called(0, "weather", WEATHER_ARGUMENTS)]),
    "call that was not begun": (QWEN, '<tool_call>{"name": "wea', [TextDelta('<tool_call>{"name": "wea')]),
    "arguments before the name": (
        QWEN,
        '<tool_call>{"arguments": {"a": 1}, "name": "time"}</tool_call>',
        [called(0, "time", '{"a":1}')],
    ),
    "truncated start marker": (QWEN, "So <tool_c", [TextDelta("So <tool_c")]),
    "mistral": (
        MISTRAL,
        '[THINK]Both.[/THINK][TOOL_CALLS]weather[ARGS]{"city": "[/THINK]"}[TOOL_CALLS]time[ARGS]{}',
        [ReasoningDelta("Both."), called(0, "weather", '{"city":"[/THINK]"}'), called(1, "time", "{}")],
    ),
    "mistral truncated": (
        MISTRAL,
        'So: [TOOL_CALLS]weather[ARGS]{"ci',
        [TextDelta('So: [TOOL_CALLS]weather[ARGS]{"ci')],
    ),
    "no markers": (PLAIN, f"<think>x</think>{TIME}", [TextDelta(f"<think>x</think>{TIME}")]),
}


@pytest.mark.parametrize(("form", "text", "expected"), TRANSCRIPTS.values(), ids=TRANSCRIPTS.keys())
def test_transcripts(form: OutputFormat, text: str, expected: list[Event]) -> None:
    """Each transcript gives its events, whole and one character at a time."""
    assert events_of([text], form) == expected
    assert events_of(text, form) == expected


@given(transcript=st.sampled_from(list(TRANSCRIPTS.values())), data=st.data())
def test_any_cut_of_a_transcript_gives_its_events(
    transcript: tuple[OutputFormat, str, list[Event]], data: st.DataObject
) -> None:
    """The events are the same wherever the text is cut, even into empty pieces."""
    form, text, expected = transcript
    assert events_of(data.draw(cuts_of(text)), form) == expected


FRAGMENTS = [
    *("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[THINK]", "[/THINK]"),
    *(WEATHER, TIME, BROKEN, "time[ARGS]{}", "<", "<t", "</t", "<tool_", "[TOOL", " ", "\n\n", "a", "🌍"),
]


@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=10),
    form=st.sampled_from([QWEN, OPENED, MISTRAL, PLAIN]),
    data=st.data(),
)
def test_any_cut_of_random_markers_gives_the_same_events(
    fragments: list[str], form: OutputFormat, data: st.DataObject
) -> None:
    """Markers in any order, complete or not, give the same events however they are cut."""
    text = "".join(fragments)
    whole = events_of([text], form)
    assert events_of(text, form) == whole
    assert events_of(data.draw(cuts_of(text)), form) == whole


@given(fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=10), cut=st.integers(0, 200))
def test_nothing_is_lost_when_no_call_can_be_read(fragments: list[str], cut: int) -> None:
    """If no call can be parsed and there is no reasoning, the output is the model's text, character by character."""

    def reject(text: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
        raise AttributeError(text, tools)

    text = "".join(fragments)
    form = OutputFormat(tool_start="<tool_call>", tool_end="</tool_call>", parse_tool_call=reject)
    assert events_of([text[:cut], text[cut:]], form) == ([TextDelta(text)] if text else [])


def test_text_that_cannot_be_a_marker_is_passed_on_at_once() -> None:
    """Only the beginning of a marker waits for the next piece."""
    parser = OutputParser(QWEN, TOOLS)
    assert parser.feed("Hel") == [TextDelta("Hel")]
    assert parser.feed("lo <to") == [TextDelta("lo ")]
    assert parser.feed("e>") == [TextDelta("<toe>")]


def test_arguments_stream_as_they_are_written() -> None:
    """A call starts when its arguments begin, and each piece of them is passed on at once."""
    parser = OutputParser(QWEN, TOOLS, numbered_ids())
    assert parser.feed('<tool_call>\n{"name": "weather", "arguments": ') == []
    assert parser.feed('{"ci') == [ToolCallStart(0, "call_0", "weather"), ToolCallDelta(0, '{"ci')]
    assert parser.feed('ty": "Kra') == [ToolCallDelta(0, 'ty": "Kra')]
    assert parser.feed('ków"}') == [ToolCallDelta(0, 'ków"}')]
    assert parser.feed("}\n</tool_call>") == parser.finish() == []


def test_a_call_in_another_syntax_is_emitted_with_its_end_marker() -> None:
    """A call in another syntax is passed on as soon as it is complete, not at the end of the completion."""
    parser = OutputParser(replace(QWEN, tool_call_style=ToolCallStyle.MARKED), TOOLS)
    assert parser.feed(WEATHER[:-1]) == []
    assert parser.num_tool_calls == 0
    start, _arguments = parser.feed(WEATHER[-1:])
    assert isinstance(start, ToolCallStart)
    assert parser.num_tool_calls == 1


def test_a_long_call_is_not_searched_again_with_every_piece() -> None:
    """Parsing takes linear time: at most the beginning of one marker is searched again with the next piece."""
    parser = OutputParser(QWEN, TOOLS)
    parser.feed("<tool_call>")
    for _ in range(2000):
        parser.feed("x</tool_call")
        assert len(parser._tail) < len("</tool_call>")
    assert parser.finish() == [TextDelta("<tool_call>" + 2000 * "x</tool_call")]


def test_without_tools_tool_markers_are_text() -> None:
    """A client that offered no tools gets the model's text as it is."""
    assert events_of(WEATHER, tools=()) == [TextDelta(WEATHER)]


def test_without_a_parser_tool_markers_are_text() -> None:
    """Tool calls of a model without a parser are passed on as text."""
    assert events_of(WEATHER, replace(QWEN, parse_tool_call=None)) == [TextDelta(WEATHER)]


def test_without_think_end_there_is_no_reasoning() -> None:
    """A format without an end of reasoning never starts it, so that the answer is not taken for reasoning."""
    form = OutputFormat(think_start="<think>", starts_in_reasoning=True)
    assert events_of("<think>Yes.", form) == [TextDelta("<think>Yes.")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\n", [TextDelta("\n\n")]),
        ("\n\n Yes. ", [TextDelta("\n\n Yes. ")]),
        (f"\n{TIME}\n \n", [called(0, "time", "{}")]),
        (f"<think>x</think> \n {TIME}", [ReasoningDelta("x"), called(0, "time", "{}")]),
        (f"{TIME}\n<think>\n</think>\nDone.", [called(0, "time", "{}"), TextDelta("Done.")]),
        (f"\n{BROKEN}", [TextDelta(f"\n{BROKEN}")]),
    ],
)
def test_whitespace_stays_with_text_and_goes_with_markers(text: str, expected: list[Event]) -> None:
    """No answer loses its whitespace, and none is shown around tool calls."""
    assert events_of(text) == expected


@pytest.mark.parametrize(
    ("payload", "arguments"),
    [
        ('{"name": "time", "arguments": {"a": [1, null]}}', '{"a": [1, null]}'),
        ('{"name": "time", "arguments": "{\\"a\\":  1}"}', '{"a":  1}'),
        ('{"name": "time", "arguments": ""}', "{}"),
        ('{"name": "time", "arguments": null}', "{}"),
        ('{"name": "time"}', "{}"),
        ('{"name": "time", "arguments": {"a": "\\ud83d"}}', '{"a": "\\ud83d"}'),
        ('{"name": "time", "arguments": {"a": "\\ud83c\\udf0d"}}', '{"a": "\\ud83c\\udf0d"}'),
        ('{"id": "1", "type": "function", "name": "time", "parameters": {"a": NaN}}', '{"a": NaN}'),
        ('{"name": "time", "arguments": {"a": 1}, "id": 3}', '{"a": 1}'),
    ],
)
def test_arguments_are_the_json_text_of_an_object(payload: str, arguments: str) -> None:
    """Arguments are the model's own text, and an empty object if it wrote none."""
    assert events_of([f"<tool_call>{payload}</tool_call>"]) == [called(0, "time", arguments)]


@pytest.mark.parametrize(
    "payload",
    [
        "",
        "null",
        "[]",
        "3",
        '"time"',
        '{"arguments": {}}',
        '{"name": "", "arguments": {}}',
        '{"name": 3, "arguments": {}}',
        '{"name": "\\ud83d", "arguments": {}}',
        '{"name": "time", "arguments": [1]}',
        '{"name": "time", "arguments": "now"}',
        '{"name": "time", "input": {"a": 1}}',
        '[{"name": "time", "arguments": {}}, {"name": "time", "arguments": 1}]',
        100_000 * "[",
    ],
)
def test_text_that_is_not_a_call_is_passed_on(payload: str) -> None:
    """Anything but a name with an object of arguments is passed on as it is, including markers."""
    text = f"<tool_call>{payload}</tool_call>"
    assert events_of([text]) == [TextDelta(text)]


def test_a_call_to_a_tool_that_was_not_offered_is_a_call() -> None:
    """A call of an unknown tool is passed on, and the client decides what to do."""
    text = '<tool_call>{"name": "fly", "arguments": {}}</tool_call>'
    assert events_of([text]) == [called(0, "fly", "{}")]


def test_ids_are_unique() -> None:
    """Every call gets a new id, even within one list and whatever id the model wrote."""

    def parse(text: str, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        del text, tools
        return [{"id": "functions.time:0", "name": "time", "arguments": {}}] * 3

    parser = OutputParser(replace(QWEN, parse_tool_call=parse, tool_call_style=ToolCallStyle.MARKED), TOOLS)
    events = parser.feed(TIME + TIME)
    ids = {event.id for event in events if isinstance(event, ToolCallStart)}
    assert len(ids) == 6
    assert all(call_id.startswith("call_") for call_id in ids)


def test_parsers_get_the_text_between_the_markers_and_the_tools() -> None:
    """`parse_tool_call` is called once for each call, with function schemas in the shape of chat templates."""
    seen: list[tuple[str, list[dict[str, Any]]]] = []

    def parse(text: str, tools: list[dict[str, Any]]) -> dict[str, Any]:
        seen.append((text, tools))
        return {"name": "time", "arguments": {}}

    events_of("<tool_call> x </tool_call>", replace(QWEN, parse_tool_call=parse), TOOLS[:1])
    function = {"name": "weather", "description": "Now", "parameters": {"type": "object"}}
    assert seen == [(" x ", [{"type": "function", "function": function}])]


def test_finish_can_be_called_twice() -> None:
    """A second `finish` returns no events."""
    parser = OutputParser(QWEN, TOOLS)
    parser.feed(BROKEN[:-1])
    assert parser.finish() == [TextDelta(BROKEN[:-1])]
    assert parser.finish() == []
