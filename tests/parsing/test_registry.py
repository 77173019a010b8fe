"""Which parser reads what: a transcript of each family in each situation, and that the cut does not matter."""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import (
    OutputFormat,
    OutputSpec,
    ReasoningDelta,
    ResponseFormat,
    TextDelta,
    Tool,
    ToolCallStyle,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.parsing.registry import parser_for
from tests.parsing.events import Called, called, cuts_of, events_from, numbered_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.parsing.events import Event

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "at": {"type": "object"}},
}
TOOLS = (Tool("weather", "The weather of the next days.", SCHEMA), Tool("time"))
STRICT = tuple(replace(tool, is_strict=True) for tool in TOOLS)
REQUIRED = ToolChoice(ToolChoiceMode.REQUIRED)
ANSWER = ResponseFormat({"type": "object"})


def marked(module: str, think: tuple[str, str] | None, style: ToolCallStyle = ToolCallStyle.MARKED) -> OutputFormat:
    """The format of a family that mlx-lm has a parser for."""
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{module}")
    start, end = think or (None, None)
    return OutputFormat(start, end, parser.tool_call_start, parser.tool_call_end, parser.parse_tool_call, style)


THINK = ("<think>", "</think>")
HERMES = marked("json_tools", THINK, ToolCallStyle.HERMES)
LLAMA = OutputFormat(tool_call_style=ToolCallStyle.LLAMA)
LLAMA_THINKING = replace(LLAMA, think_start="<think>", think_end="</think>")
MISTRAL = marked("mistral", ("[THINK]", "[/THINK]"), ToolCallStyle.MISTRAL)
OLD_MISTRAL = replace(MISTRAL, tool_call_style=ToolCallStyle.MARKED)
CODER = marked("qwen3_coder", THINK)
HARMONY = OutputFormat("<|channel|>analysis<|message|>", "<|end|>", tool_call_style=ToolCallStyle.HARMONY)
GEMMA = marked("gemma4", ("<|channel>thought", "<channel|>"))
GLM = marked("glm47", THINK)


@dataclass(frozen=True)
class Transcript:
    """What a model of a family wrote, and what a client is to see."""

    form: OutputFormat
    text: str
    events: Sequence[Event]
    choice: ToolChoice = ToolChoice()
    tools: tuple[Tool, ...] = TOOLS
    answer: ResponseFormat | None = None
    is_cut_off: bool = False


WEATHER = called(0, "weather", '{"city":"Łódź 🌧","days":2}')
NESTED = called(0, "weather", '{"at":{"x":[1,{"y":"}"}],"z":null}}')
PARALLEL = [called(0, "weather", '{"city": "Oslo"}'), called(1, "time", "{}")]
#: The same as a model writes it in JSON.
WRITTEN = called(0, "weather", '{"city": "Łódź 🌧", "days": 2}')
WRITTEN_NESTED = called(0, "weather", '{"at": {"x": [1, {"y": "}"}], "z": null}}')

TRANSCRIPTS = {
    "hermes": Transcript(
        HERMES,
        '<think>\nRain?\n</think>\n\nI look.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Łódź 🌧", '
        '"days": 2}}\n</tool_call>\n<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        [ReasoningDelta("Rain?\n"), TextDelta("I look.\n"), WRITTEN, called(1, "time", "{}")],
    ),
    "hermes nested, markers in a string": Transcript(
        HERMES,
        '<tool_call>\n{"name": "weather", "arguments": {"city": "</tool_call>\\"<tool_call>", "at": {"x": [{}]}}}\n'
        "</tool_call>",
        [called(0, "weather", '{"city": "</tool_call>\\"<tool_call>", "at": {"x": [{}]}}')],
    ),
    "hermes required": Transcript(
        HERMES,
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": "wea',
        [called(0, "time", "{}")],
        REQUIRED,
        is_cut_off=True,
    ),
    "a number beyond floats": Transcript(
        HERMES,
        '<tool_call>{"name": "time", "arguments": {"a": [-1e999]}}</tool_call>',
        [called(0, "time", '{"a": [-1e999]}')],
    ),
    "llama": Transcript(LLAMA, '{"name": "weather", "parameters": {"city": "Łódź 🌧", "days": 2}}<|eom_id|>', [WRITTEN]),
    "llama nested": Transcript(
        LLAMA,
        '\n{"type": "function", "name": "weather", "parameters": {"at": {"x": [1, {"y": "}"}], "z": null}}}',
        [WRITTEN_NESTED],
    ),
    "llama tag": Transcript(
        LLAMA,
        'I look.<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}; {"name": "time", "parameters": {}}',
        [TextDelta("I look."), *PARALLEL],
    ),
    "llama list": Transcript(
        LLAMA,
        '[{"name": "weather", "parameters": {"city": "Oslo"}},\n {"name": "time", "arguments": {}}]\n',
        PARALLEL,
    ),
    "llama markers in a string": Transcript(
        LLAMA,
        '{"name": "weather", "parameters": {"city": "<|python_tag|>{<|eot_id|>"}}',
        [called(0, "weather", '{"city": "<|python_tag|>{<|eot_id|>"}')],
    ),
    "llama truncated": Transcript(
        LLAMA, '{"name": "weather", "parameters": {"ci', [called(0, "weather", '{"ci')], is_cut_off=True
    ),
    "llama talks, then quotes a call": Transcript(
        LLAMA,
        'Like {"name": "time", "parameters": {}}<|eot_id|>',
        [TextDelta('Like {"name": "time", "parameters": {}}')],
    ),
    "llama thinks": Transcript(
        LLAMA_THINKING,
        '<think>{"name": "time", "parameters": {}}?</think>\n\n{"name": "time", "parameters": {}}',
        [ReasoningDelta('{"name": "time", "parameters": {}}?'), called(0, "time", "{}")],
    ),
    "mistral": Transcript(
        MISTRAL,
        '[THINK]Rain?[/THINK]I look.[TOOL_CALLS]weather[ARGS]{"city": "Oslo"}[TOOL_CALLS]time[ARGS]{}',
        [ReasoningDelta("Rain?"), TextDelta("I look."), *PARALLEL],
    ),
    "mistral list": Transcript(
        MISTRAL,
        '[TOOL_CALLS] [{"name": "weather", "arguments": {"at": {"x": [1, {"y": "}"}], "z": null}}}]',
        [WRITTEN_NESTED],
    ),
    "mistral truncated": Transcript(
        MISTRAL, '[TOOL_CALLS]weather[ARGS]{"city', [called(0, "weather", '{"city')], is_cut_off=True
    ),
    "qwen3 coder": Transcript(
        CODER,
        "<think>Rain?</think>\n<tool_call>\n<function=weather>\n<parameter=city>\nŁódź 🌧\n</parameter>\n"
        "<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=time>\n</function>\n"
        "</tool_call>",
        [ReasoningDelta("Rain?"), WEATHER, called(1, "time", "{}")],
    ),
    "qwen3 coder truncated": Transcript(
        CODER,
        "<tool_call>\n<function=weather>\n<parameter=ci",
        [],
        is_cut_off=True,
    ),
    "harmony": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Rain?<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"
        '{"city":"Łódź 🌧","days":2}<|call|>',
        [ReasoningDelta("Rain?"), TextDelta("I look."), WEATHER],
    ),
    "harmony recipient first, parallel": Transcript(
        HARMONY,
        ' to=functions.weather<|channel|>commentary json<|message|>{"city":"Oslo"}<|end|>'
        "<|start|>assistant to=functions.time<|channel|>commentary json<|message|>{}",
        [called(0, "weather", '{"city":"Oslo"}'), called(1, "time", "{}")],
    ),
    "harmony nested, markers in a string": Transcript(
        HARMONY,
        "<|channel|>commentary to=functions.weather<|message|>"
        '{"at":{"x":[1]},"city":"<|call|><|start|>\\"<|channel|>"}',
        [called(0, "weather", '{"at":{"x":[1]},"city":"<|call|><|start|>\\"<|channel|>"}')],
    ),
    "harmony truncated call": Transcript(
        HARMONY,
        '<|channel|>commentary to=functions.weather<|message|>{"city":"Os',
        [called(0, "weather", '{"city":"Os')],
        is_cut_off=True,
    ),
    "gemma": Transcript(
        GEMMA,
        '<|channel>thought\nRain?<channel|>I look.<|tool_call>call:weather{city:<|"|>Łódź 🌧<|"|>,days:2}<tool_call|>'
        "<|tool_call>call:time{}<tool_call|>",
        [ReasoningDelta("Rain?"), TextDelta("I look."), WEATHER, called(1, "time", "{}")],
    ),
    "gemma nested": Transcript(
        GEMMA,
        '<|tool_call>call:weather{at:{x:[1,{y:<|"|>}<|"|>}],z:null}}<tool_call|>',
        [NESTED],
    ),
    "glm": Transcript(
        GLM,
        "<think>Rain?</think>\n<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Łódź 🌧</arg_value>\n"
        "<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n</tool_call>\n<tool_call>time\n</tool_call>",
        [ReasoningDelta("Rain?"), WEATHER, called(1, "time", "{}")],
    ),
    "glm truncated": Transcript(GLM, "<tool_call>weather\n<arg_key>ci", [], is_cut_off=True),
    "forced in another syntax": Transcript(
        CODER,
        '<think>Both.</think>\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "time", "arguments": {}}\n</tool_call>',
        [ReasoningDelta("Both."), *PARALLEL],
        REQUIRED,
    ),
    "forced without an end marker": Transcript(
        OLD_MISTRAL,
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time", "arguments": {}}]',
        PARALLEL,
        REQUIRED,
    ),
    "strict, markers in a string": Transcript(
        CODER,
        'Hm.\n<tool_call>\n{"name": "weather", "arguments": {"city": "</tool_call><think>"}}\n</tool_call>',
        [TextDelta("Hm.\n"), called(0, "weather", '{"city": "</tool_call><think>"}')],
        tools=STRICT,
    ),
    "strict llama answers in json": Transcript(
        LLAMA_THINKING,
        '<think>Hm.</think>\n\n[{"name": "weather", "parameters": {"city": "Oslo"}}]',
        [ReasoningDelta("Hm."), TextDelta('[{"name": "weather", "parameters": {"city": "Oslo"}}]')],
        tools=STRICT,
    ),
    "strict llama": Transcript(
        LLAMA_THINKING,
        '{"name": "weather", "parameters": {"city": "<think>Oslo</think>"}}; {"name": "time", "parameters": {}}',
        [called(0, "weather", '{"city": "<think>Oslo</think>"}'), called(1, "time", "{}")],
        tools=STRICT,
    ),
    "json beside tools, markers in a string": Transcript(
        HERMES,
        '<think>Hm.</think>\n\n{"a": "<think><tool_call>{", ":1,": "</tool_call>"}',
        [ReasoningDelta("Hm."), TextDelta('{"a": "<think><tool_call>{", ":1,": "</tool_call>"}')],
        answer=ANSWER,
    ),
    "json beside tools, calls after all": Transcript(
        GEMMA,
        '<|tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n<tool_call|>\n'
        '<|tool_call>\n{"name": "time", "arguments": {}}\n<tool_call|>',
        PARALLEL,
        answer=ANSWER,
    ),
    "json beside harmony's tools, markers in a string": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>"
        '{"a": "<|end|><|channel|>x<|message|>"}',
        [ReasoningDelta("Hm."), TextDelta('{"a": "<|end|><|channel|>x<|message|>"}')],
        answer=ANSWER,
    ),
    "json beside llama's tools": Transcript(
        LLAMA,
        '{"name": "weather", "days": 3, "parameters": {}, "a": "<|eot_id|><|python_tag|>"}',
        [TextDelta('{"name": "weather", "days": 3, "parameters": {}, "a": "<|eot_id|><|python_tag|>"}')],
        answer=ANSWER,
    ),
    "forced truncated": Transcript(
        OutputFormat(),
        '[{"name": "weather", "arguments": {"city": "Oslo"}}, {"name": "time", "argu',
        [PARALLEL[0]],
        REQUIRED,
        is_cut_off=True,
    ),
    "forced in harmony's channels": Transcript(
        HARMONY,
        "<|channel|>analysis<|message|>One.<|end|><|start|>assistant"
        '<|channel|>commentary to=functions.weather <|constrain|>json<|message|>{"city": "Oslo"}',
        [ReasoningDelta("One."), called(0, "weather", '{"city": "Oslo"}')],
        ToolChoice(ToolChoiceMode.REQUIRED, name="weather"),
    ),
    "forced, markers in a string": Transcript(
        replace(OutputFormat(), think_start="<think>", think_end="</think>"),
        '[{"name": "weather", "arguments": {"city": "]},{\\"<think>"}}]',
        [called(0, "weather", '{"city": "]},{\\"<think>"}')],
        REQUIRED,
    ),
    "no format at all, forced": Transcript(
        OutputFormat(), '[{"name": "time", "arguments": {}}]', [called(0, "time", "{}")], REQUIRED
    ),
}


def events_of(transcript: Transcript, pieces: Iterable[str]) -> list[Event]:
    """What the registry's parser makes of the pieces."""
    spec = OutputSpec(transcript.tools, transcript.choice, transcript.answer)
    parser = parser_for(spec.format_for(transcript.form), spec, numbered_ids())
    return events_from(parser, pieces, is_cut_off=transcript.is_cut_off)


def said(events: Iterable[Event], kind: type[TextDelta | ReasoningDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind) and not isinstance(event, Called))


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_each_family_s_transcript_gives_its_events(name: str) -> None:
    """Calls, reasoning and text come out the same at once and one character at a time."""
    transcript = TRANSCRIPTS[name]
    assert events_of(transcript, [transcript.text]) == transcript.events
    assert events_of(transcript, transcript.text) == transcript.events


@given(transcript=st.sampled_from(list(TRANSCRIPTS.values())), data=st.data())
def test_any_cut_gives_the_same_events(transcript: Transcript, data: st.DataObject) -> None:
    """A client sees the same completion however its tokens fell."""
    assert events_of(transcript, data.draw(cuts_of(transcript.text))) == transcript.events


@given(transcript=st.sampled_from(list(TRANSCRIPTS.values())), length=st.integers(0, 300), data=st.data())
def test_any_cut_of_a_truncated_transcript_gives_the_same_events(
    transcript: Transcript, length: int, data: st.DataObject
) -> None:
    """A completion that ran into its limit anywhere is read the same, and no call or text of it is made up."""
    text = transcript.text[:length]
    cut_off = replace(transcript, is_cut_off=True)
    whole = events_of(cut_off, [text])
    assert events_of(cut_off, text) == whole
    assert events_of(cut_off, data.draw(cuts_of(text))) == whole
    # A single character that might have become a marker counts as text.
    whole = [told for told in whole if isinstance(told, Called) or told.text.strip() not in ("<", "[")]
    for told, event in zip(whole, transcript.events, strict=False):
        assert type(told) is type(event)
        if isinstance(told, Called) and isinstance(event, Called):
            assert told.call.name == event.call.name
            assert event.call.arguments.startswith(told.call.arguments)
    assert len(whole) <= len(transcript.events)


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_a_completion_cut_off_anywhere_shows_no_markup(name: str) -> None:
    """Text and reasoning begin as those of the whole completion, wherever `max_tokens` ended it."""
    transcript = replace(TRANSCRIPTS[name], is_cut_off=True)
    texts = {kind: said(transcript.events, kind) for kind in (TextDelta, ReasoningDelta)}
    for length in range(len(transcript.text)):
        events = events_of(transcript, [transcript.text[:length]])
        for kind, text in texts.items():
            assert text.startswith(said(events, kind).rstrip("<[|").rstrip()), transcript.text[:length]


FRAGMENTS = [
    *(
        "<|start|>",
        "<|channel|>",
        "<|message|>",
        "<|constrain|>",
        "<|end|>",
        "<|call|>",
        "<|python_tag|>",
        "<|eot_id|>",
    ),
    *("assistant", "analysis", "final", " to=functions.time", "<think>", "</think>", "<|", "<|pyth", '"', "\\", "\n"),
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "time[ARGS]", '{"name": "time", "arguments": {"a": "'),
    *('{"name": "time", "parameters": {}}', '{"name": "fly", "arguments": {}}', '{"a": 1}', "[", "]", ",", "{", "}"),
    *(" ", "a", 80 * "x", "🌍"),
]


@given(
    fragments=st.lists(st.sampled_from(FRAGMENTS), max_size=12),
    jumble=st.builds(
        Transcript,
        form=st.sampled_from([LLAMA, LLAMA_THINKING, HARMONY, HERMES, MISTRAL, OLD_MISTRAL, OutputFormat()]),
        text=st.just(""),
        events=st.just(()),
        choice=st.sampled_from([ToolChoice(), REQUIRED]),
        tools=st.sampled_from([TOOLS, STRICT]),
        answer=st.sampled_from([None, ANSWER]),
        is_cut_off=st.booleans(),
    ),
    data=st.data(),
)
def test_any_cut_of_a_jumble_gives_the_same_events(
    fragments: list[str], jumble: Transcript, data: st.DataObject
) -> None:
    """Markers, brackets and quotes in any order mean the same however they arrive."""
    text = "".join(fragments)
    whole = events_of(jumble, [text])
    assert events_of(jumble, text) == whole
    assert events_of(jumble, data.draw(cuts_of(text))) == whole


@pytest.mark.parametrize("choice", [ToolChoice(ToolChoiceMode.NONE), ToolChoice(), REQUIRED])
@pytest.mark.parametrize("form", [HERMES, LLAMA, HARMONY, CODER])
def test_without_tools_nothing_is_a_call(form: OutputFormat, choice: ToolChoice) -> None:
    """A client that offers no tools, or forbids them, never gets a call."""
    spec = OutputSpec(TOOLS if choice.mode is ToolChoiceMode.NONE else (), choice)
    for transcript in TRANSCRIPTS.values():
        parser = parser_for(spec.format_for(form), spec)
        events_from(parser, [transcript.text])
        assert parser.num_tool_calls == 0


@pytest.mark.parametrize(
    ("form", "piece", "choice"),
    [
        (HERMES, '<tool_call>{"a": "</tool_cal', ToolChoice()),
        (LLAMA, '<|python_tag|>{"a": "<|eot', ToolChoice()),
        (LLAMA, '{"name": [', ToolChoice()),
        (LLAMA, "[,;", ToolChoice()),
        (HARMONY, '<|channel|>commentary to=functions.f<|message|>{"a": ["<|en', ToolChoice()),
        (HARMONY, "<|start|>a", ToolChoice()),
        (OutputFormat(), '[{"a": "', REQUIRED),
        (CODER, '<tool_call>{"a": "</tool_cal', REQUIRED),
    ],
)
def test_time_is_linear_in_the_text(form: OutputFormat, piece: str, choice: ToolChoice) -> None:
    """Eight times the text takes about eight times the time, not sixty-four, in pieces as small as tokens."""

    def cost(repeats: int) -> float:
        spec = OutputSpec(TOOLS, choice)
        parser = parser_for(spec.format_for(form), spec)
        begun = time.process_time()
        for _ in range(repeats):
            parser.feed(piece)
        parser.finish()
        return time.process_time() - begun

    cost(500)
    short = min(cost(2_000) for _ in range(3))
    assert cost(16_000) < 32 * short
