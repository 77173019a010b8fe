"""Where a row is in its thinking: told from its tokens, the same whether these are known at once or one token late."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.structured.thinking import Thinking, ThinkingRules
from periscope.engine.text.thinking_format import ThinkingFormat

PIECES = ["a", " ", "\n", "<think>", "</think>", "<", "thi", "nk>", "</", "<call>", "</call>", "{", "<th"]
TEXTS = [piece.encode() for piece in PIECES] + ["é".encode()[:1], "é".encode()[1:]]
ENDING = tuple(TEXTS.index(piece) for piece in (b"\n", b"</think>", b"\n"))
FORMAT = ThinkingFormat("<think>", "</think>", "<call>", "</call>", (ENDING,), (ENDING,))


def watched(rules: ThinkingRules, budget: int | None) -> Thinking:
    return Thinking(rules, budget, lambda token: TEXTS[token])


def written(
    wishes: Sequence[int], thinking: Thinking, *, is_late: bool, accepted: Callable[[Sequence[int]], int] = len
) -> list[int]:
    """The tokens of a model that wants to say these; `is_late` shows a token only when it must be, as a batch does."""
    tokens: list[int] = []
    for at, wish in enumerate(wishes):
        if not is_late or thinking.depends_on(at):
            for place, token in enumerate(tokens):
                thinking.see(token, place)
        forced = thinking.forced(at, accepted)
        for place, token in enumerate(tokens):  # read while the next is computed
            thinking.see(token, place)
        tokens.append(wish if forced is None else forced)
    return tokens


def text_of(tokens: Sequence[int]) -> str:
    return b"".join(TEXTS[token] for token in tokens).decode("utf-8", "replace")


def ids(text: str) -> list[int]:
    """The tokens of a text, the longest first."""
    order = sorted(range(len(PIECES)), key=lambda token: -len(TEXTS[token]))
    tokens: list[int] = []
    while text:
        tokens.append(next(token for token in order if text.startswith(PIECES[token])))
        text = text[len(PIECES[tokens[-1]]) :]
    return tokens


RULES = st.builds(ThinkingRules, st.just(FORMAT), is_open=st.booleans(), is_once=st.booleans(), may_call=st.booleans())
TOKENS = st.lists(st.integers(0, len(TEXTS) - 1), max_size=80)


@given(wishes=TOKENS, rules=RULES, budget=st.none() | st.integers(0, 12))
def test_a_token_known_late_changes_nothing(wishes: list[int], rules: ThinkingRules, budget: int | None) -> None:
    """A batch that computes ahead writes what one would that waits for every token."""
    at_once = written(wishes, watched(rules, budget), is_late=False)
    assert written(wishes, watched(rules, budget), is_late=True) == at_once


@given(wishes=TOKENS, rules=RULES)
def test_without_a_budget_nothing_is_forced(wishes: list[int], rules: ThinkingRules) -> None:
    """The model says what it wants."""
    assert written(wishes, watched(rules, None), is_late=True) == wishes


def said(text: str, budget: int, **rules: bool) -> str:
    """What is written when the model wants to say this, one token each."""
    return text_of(written(ids(text), watched(ThinkingRules(FORMAT, **rules), budget), is_late=True))


def test_a_block_of_the_models_own_is_ended_too() -> None:
    """With one token at least; the next block, which has no budget left, after one token."""
    assert said("<think>aaaaaaaaaa", 3) == "<think>aaa\n</think>\naaaa"
    assert said("<think>aaaaaaaaaa", 0) == "<think>a\n</think>\naaaaaa"
    assert said("<think>aa</think>a<think>aaaaaaaaa", 3) == "<think>aa</think>a<think>a\n</think>\naaaaa"


def test_nothing_is_ended_inside_a_call_or_an_answer() -> None:
    """A marker in a call's arguments opens no thinking, nor one behind the beginning of a constrained answer."""
    assert said("<call>{<think>aaaaa</call>a", 1, may_call=True) == "<call>{<think>aaaaa</call>a"
    assert said("{<think>aaaaaaa", 1, is_once=True) == "{<think>aaaaaaa"
    assert said("<think>a</think><think>aaaaaa", 2, is_once=True) == "<think>a</think><think>aaaaaa"
    assert said(" \n<think>aaaaaa", 1, is_once=True) == " \n<think>a\n</think>\naa"


def test_an_end_that_the_model_is_writing_itself_is_not_written_twice() -> None:
    """It has some tokens more for it, as for the rest of a character."""
    wishes = [*ids("a"), *map(PIECES.index, ("</", "thi", "nk>")), *ids("aaaa")]
    assert written(wishes, watched(ThinkingRules(FORMAT, is_open=True), 2), is_late=True) == wishes
    wishes = [*ids("a"), *map(PIECES.index, ("</", "thi")), *ids("aaaa")]
    tokens = written(wishes, watched(ThinkingRules(FORMAT, is_open=True), 2), is_late=True)
    assert text_of(tokens) == "a</thia\n</think>\n"
    halves = [len(TEXTS) - 2, len(TEXTS) - 1]
    wishes = [0, *halves, *halves, *[0] * 9]
    tokens = written(wishes, watched(ThinkingRules(FORMAT, is_open=True), 2), is_late=True)
    assert tuple(tokens[3:6]) == ENDING


def test_a_grammar_that_takes_none_of_the_ending_has_no_thinking_to_end() -> None:
    """The row is left alone from then on; an ending that it takes up to its marker is written so far."""
    rules = ThinkingRules(FORMAT, is_open=True)
    wishes = [0] * 12
    assert written(wishes, watched(rules, 3), is_late=True, accepted=lambda _: 0) == wishes
    assert written(wishes, watched(rules, 3), is_late=True, accepted=lambda _: 1) == wishes
    tokens = written(wishes, watched(rules, 3), is_late=True, accepted=lambda _: 2)
    assert tokens == [0, 0, 0, *ENDING[:2], *[0] * 7]
