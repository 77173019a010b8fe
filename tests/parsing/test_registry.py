"""The registry's parsers on a transcript of each family in each situation, cut anywhere."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import (
    OutputFormat,
    OutputSpec,
    ReasoningDelta,
    TextDelta,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.parsing.registry import parser_for
from tests.parsing.events import Called, cuts_of, events_from, numbered_ids
from tests.parsing.transcripts import (
    ANSWER,
    CODER,
    HARMONY,
    HERMES,
    LLAMA,
    LLAMA_THINKING,
    MISTRAL,
    OLD_MISTRAL,
    REQUIRED,
    STRICT,
    TOOLS,
    TRANSCRIPTS,
    Transcript,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.parsing.events import Event


def events_of(transcript: Transcript, pieces: Iterable[str]) -> list[Event]:
    """The events that the registry's parser makes of the pieces."""
    spec = OutputSpec(transcript.tools, transcript.choice, transcript.answer)
    parser = parser_for(spec.format_for(transcript.form), spec, numbered_ids())
    return events_from(parser, pieces, is_cut_off=transcript.is_cut_off)


def said(events: Iterable[Event], kind: type[TextDelta | ReasoningDelta]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind) and not isinstance(event, Called))


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_each_family_s_transcript_gives_its_events(name: str) -> None:
    """Calls, reasoning and text are the same for the whole text and for one character at a time."""
    transcript = TRANSCRIPTS[name]
    assert events_of(transcript, [transcript.text]) == transcript.events
    assert events_of(transcript, transcript.text) == transcript.events


@given(transcript=st.sampled_from(list(TRANSCRIPTS.values())), data=st.data())
def test_any_cut_gives_the_same_events(transcript: Transcript, data: st.DataObject) -> None:
    """The events do not depend on how tokens cut the text."""
    assert events_of(transcript, data.draw(cuts_of(transcript.text))) == transcript.events


@given(transcript=st.sampled_from(list(TRANSCRIPTS.values())), length=st.integers(0, 300), data=st.data())
def test_any_cut_of_a_truncated_transcript_gives_the_same_events(
    transcript: Transcript, length: int, data: st.DataObject
) -> None:
    """A completion that reached its limit anywhere gives no call and no text that the whole one does not."""
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
    """Wherever `max_tokens` ends a completion, its text and reasoning are prefixes of those of the whole one."""
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
def test_any_cut_of_random_markers_gives_the_same_events(
    fragments: list[str], jumble: Transcript, data: st.DataObject
) -> None:
    """Markers, brackets and quotes in any order give the same events however they are cut."""
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
    """In pieces as small as tokens, eight times the text takes about eight times as long, not sixty-four."""

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
