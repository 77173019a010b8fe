"""Tool calls that are bare JSON in the answer: which text is a call, and when that is decided."""

from __future__ import annotations

import json

import pytest

from periscope.core import OutputFormat, OutputSpec, TextDelta, Tool, ToolCallDelta, ToolCallStart, ToolCallStyle
from periscope.parsing.bare_calls import FORCED, LLAMA, BareCallDialect, BareCallParser
from periscope.parsing.registry import parser_for
from periscope.parsing.stream import OutputParser
from tests.parsing.events import Event, called, events_from, numbered_ids


def parser_of(dialect: BareCallDialect) -> BareCallParser:
    return BareCallParser(OutputParser(OutputFormat(), ()), dialect, frozenset({"weather", "time"}), numbered_ids())


TIME = '{"name": "time", "parameters": {}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (TIME, [called(0, "time", "{}")]),
        (f" \n{TIME}\n", [called(0, "time", "{}")]),
        ('{"function": "time", "parameters": {"a": 1}}', [called(0, "time", '{"a":1}')]),
        (f"{TIME}\nThere.", [called(0, "time", "{}"), TextDelta("\nThere.")]),
        (f"<|python_tag|>{TIME[:-1]}, 1}}", [called(0, "time", "{}")]),
        (f'{TIME[:-1]}, "id": "}}"}}; {TIME}', [called(0, "time", "{}"), called(1, "time", "{}")]),
        (f"{TIME[:-1]}; {TIME}", [called(0, "time", "{}"), called(1, "time", "{}")]),
        ('<|python_tag|>{"name": "fly", "parameters": {}}', [called(0, "fly", "{}")]),
        ('{"name": "fly", "parameters": {}}', [TextDelta('{"name": "fly", "parameters": {}}')]),
        ('{"name": "time"}', [TextDelta('{"name": "time"}')]),
        ('{"name": "time", "parameters": 3}', [TextDelta('{"name": "time", "parameters": 3}')]),
        ("[1, 2]", [TextDelta("[1, 2]")]),
        ("<|python_tag|>print(1)<|eom_id|>", [TextDelta("print(1)")]),
        ("Hi.<|eot_id|>", [TextDelta("Hi.")]),
        (" \n", [TextDelta(" \n")]),
        ("<|python_", [TextDelta("<|python_")]),
        ("", []),
    ],
)
def test_which_output_of_llama_is_a_call(text: str, expected: list[Event]) -> None:
    """JSON that names an offered tool, or follows the tag, is a call; all else is text without control tokens."""
    assert events_from(parser_of(LLAMA), [text]) == expected
    assert events_from(parser_of(LLAMA), text) == expected


def test_an_answer_that_goes_on_does_not_begin_with_a_call() -> None:
    """JSON in the middle of an answer is text; the tag announces a call there, too."""
    form = OutputFormat(tool_call_style=ToolCallStyle.LLAMA, continues_text=True)
    spec = OutputSpec((Tool("time"),))
    assert events_from(parser_for(form, spec, numbered_ids()), TIME) == [TextDelta(TIME)]
    assert events_from(parser_for(form, spec, numbered_ids()), f"!<|python_tag|>{TIME}") == [
        TextDelta("!"),
        called(0, "time", "{}"),
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[{"name": "fly", "arguments": {"to": "}"}}]', [called(0, "fly", '{"to": "}"}')]),
        ('{"name": "time", "arguments": {}}', [called(0, "time", "{}")]),
        ("[]", [TextDelta("[]")]),
        ("Sorry.", [TextDelta("Sorry.")]),
        ('[{"name": "time", "arguments": {', [called(0, "time", "{")]),
        ('[{"name": "time", "argu', [TextDelta('[{"name": "time", "argu')]),
    ],
)
def test_each_whole_object_of_a_forced_array_is_a_call(text: str, expected: list[Event]) -> None:
    """Each complete object of the array is a call; an incomplete call is text."""
    assert events_from(parser_of(FORCED), [text]) == expected
    assert events_from(parser_of(FORCED), text) == expected


def test_arguments_stream_as_they_are_written() -> None:
    """Arguments are passed on as they are generated, before the object or the array ends."""
    parser = parser_of(FORCED)
    assert parser.feed('[{"name": "time", "arguments": ') == []
    assert parser.feed('{"a": ') == [ToolCallStart(0, "call_0", "time"), ToolCallDelta(0, '{"a": ')]
    assert parser.feed("1}}") == [ToolCallDelta(0, "1}")]
    assert parser.num_tool_calls == 1


@pytest.mark.parametrize("text", ["[", "[{", '[{"na', '[{"name": "time", "argu', '{"name": "time", "arguments": '])
def test_a_forced_call_cut_off_before_its_arguments_is_dropped(text: str) -> None:
    """The markup of an incomplete call is not shown as an answer."""
    assert events_from(parser_of(FORCED), [text], is_cut_off=True) == []


def test_an_answer_in_json_streams() -> None:
    """An object whose beginning is not that of a call is passed on at once."""
    answer = json.dumps({"rows": [{"city": "Oslo", "days": number} for number in range(20)]})
    parser = parser_of(LLAMA)
    assert parser.feed(answer[:100]) == [TextDelta(answer[:64]), TextDelta(answer[64:100])]
    assert parser.feed(answer[100:]) == [TextDelta(answer[100:])]
