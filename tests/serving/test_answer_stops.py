"""AnswerStops: where stop strings count, and which text waits for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import ReasoningDelta, TextDelta, TokenLogprob, TokenText, ToolCallDelta, ToolCallStart
from periscope.parsing.contracts import Delta
from periscope.serving.answer_stops import AnswerStops
from tests.parsing.events import cuts_of


def entry(text: str) -> TokenLogprob:
    return TokenLogprob(TokenText(0, text, text.encode()), -1.0)


def told(stops: tuple[str, ...], tokens: list[str]) -> tuple[str, list[str], bool]:
    """The text, the tokens with log-probabilities, and whether a stop string was found, with one token a chunk."""
    matcher = AnswerStops(stops)
    deltas: list[Delta] = []
    for token in tokens:
        deltas += matcher.take([TextDelta(token)] if token else [], [entry(token)])
        if matcher.is_hit:
            break
    else:
        deltas += matcher.take([], is_last=True)
    texts = [delta for delta in deltas if isinstance(delta, TextDelta)]
    shown = [logprob.token.text for delta in texts for logprob in delta.logprobs]
    return "".join(delta.text for delta in texts), shown, matcher.is_hit


@given(
    text=st.text(alphabet="ab\n", max_size=30), stop=st.text(alphabet="ab\n", min_size=1, max_size=4), data=st.data()
)
def test_any_cut_of_an_answer_ends_before_its_first_stop_string(text: str, stop: str, data: st.DataObject) -> None:
    """The text ends before it, and only tokens that begin before it show their log-probabilities."""
    tokens = data.draw(cuts_of(text))
    said, shown, is_hit = told((stop,), tokens)
    assert said == text.partition(stop)[0]
    assert is_hit == (stop in text)
    assert shown == tokens[: len(shown)]
    assert len("".join(shown)) >= len(said)
    assert len("".join(shown[:-1])) <= len(said)
    if not is_hit:
        assert shown == tokens


@pytest.mark.parametrize(
    "other", [ReasoningDelta("a stop b"), ToolCallStart(0, "call_a", "stop"), ToolCallDelta(0, '{"stop": 1}')]
)
def test_reasoning_and_calls_are_not_searched(other: Delta) -> None:
    """They pass unchanged, even between two halves of a stop string."""
    matcher = AnswerStops(("stop",))
    assert matcher.take([TextDelta("one st"), other]) == [TextDelta("one "), other]
    assert matcher.take([TextDelta("ep")], is_last=True) == [TextDelta("step")]
    assert not matcher.is_hit


def test_nothing_after_a_stop_string_is_passed_on() -> None:
    """Neither text nor a call of the same chunk is passed on."""
    matcher = AnswerStops(("\n",))
    assert matcher.take([TextDelta("Yes.\nNo."), ToolCallStart(0, "call_a", "f")]) == [TextDelta("Yes.")]
    assert matcher.is_hit


def test_log_probabilities_wait_with_their_text() -> None:
    """Those of a token that may belong to a stop string come with its text, or never."""
    matcher = AnswerStops(("\n\n",))
    first, second, third = entry("a"), entry("\n"), entry("b")
    assert matcher.take([TextDelta("a")], [first]) == [TextDelta("a", (first,))]
    assert matcher.take([TextDelta("\n")], [second]) == []
    assert matcher.take([TextDelta("b")], [third]) == [TextDelta("\nb", (second, third))]
    assert matcher.take([TextDelta("\n")], [second]) == []
    assert matcher.take([TextDelta("\n")], [second]) == []
    assert matcher.is_hit


def test_without_stop_strings_nothing_waits() -> None:
    """A token without text of its own shows its log-probability at once."""
    matcher = AnswerStops(())
    assert matcher.take([], [entry("<think>")]) == [TextDelta("", (entry("<think>"),))]
    assert matcher.take([ReasoningDelta("hm")]) == [ReasoningDelta("hm")]
