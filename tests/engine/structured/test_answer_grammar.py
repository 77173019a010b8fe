"""Answers that fit a client's own grammar: choices, regular expressions, GBNF and Lark."""

from __future__ import annotations

from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from periscope.core import AnswerGrammar, OutputFormat, OutputSpec
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.structured.answer_grammar import MAX_RULES
from periscope.errors import InvalidRequest
from tests.engine.vocabulary import Vocabulary

GBNF = 'root ::= word (" " word)*\nword ::= "up" | "down" # one step\n'
LARK = 'start: "go" " " NUMBER\nNUMBER: /[0-9]{2,30}/'


@pytest.fixture(scope="module")
def demo() -> Vocabulary:
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


@pytest.mark.parametrize(
    ("grammar", "fits", "fits_not"),
    [
        (
            {"choices": ("yes", "yes, please", 'a "b"\n\\', "gr\u00fcn")},
            ["yes", "yes, please", 'a "b"\n\\', "gr\u00fcn"],
            ["ye", "no"],
        ),
        ({"choices": ("", "a")}, ["", "a"], ["b", "aa"]),
        ({"choices": tuple(f"number {n}" for n in range(3000))}, ["number 2999"], ["number 3000"]),
        ({"regex": r"a/b+\/c"}, ["a/b/c", "a/bbb/c"], ["a/c", "xa/b/c"]),
        ({"regex": "^[ab]\n[0-9]{25}$"}, ["a\n" + "7" * 25], ["a\n" + "7" * 24, "b" + "7" * 25]),
        (
            {"regex": r"\d{2}\\d[\w-]+\W[^\D5]"},
            ["12\\da-c 7", "00\\d_é9"],
            ["\u06612\\da 7", "12\\dé 7", "12\\daa7", "12\\da 5"],
        ),
        ({"grammar": GBNF}, ["up", "up down up"], ["up ", "left"]),
        ({"grammar": LARK}, ["go 12", "go " + "9" * 30], ["go 1", "go " + "9" * 31]),
    ],
    ids=["choices", "nothing", "many", "regex", "lines", "classes", "gbnf", "lark"],
)
def test_texts_that_fit_are_allowed_and_no_others(
    demo: Vocabulary, grammar: dict[str, Any], fits: list[str], fits_not: list[str]
) -> None:
    """As a whole and to the letter; numbers are as long as the grammar says."""
    compiled = demo.compiler().answer(AnswerGrammar(**grammar), starts_in_reasoning=False)
    assert [text for text in (*fits, *fits_not) if demo.accepts(compiled, text)] == fits


@pytest.mark.parametrize("is_open", [False, True])
def test_a_model_may_reason_before_it(demo: Vocabulary, *, is_open: bool) -> None:
    """About anything; what the prompt has opened has to be closed first."""
    compiler = demo.compiler(OutputFormat(think_start="<think>", think_end="</think>"))
    spec = OutputSpec(response_format=AnswerGrammar(regex="(?:up|down)"))
    grammar = compiler.constraint(spec, starts_in_reasoning=is_open).grammar
    assert grammar is not None
    assert demo.accepts(grammar, f"{'' if is_open else '<think>'}left or right?</think>\n\nup")
    assert demo.accepts(grammar, "down") != is_open
    assert not demo.accepts(grammar, f"{'' if is_open else '<think>'}left</think>\n\nleft")


def test_the_limit_ends_it_while_it_still_fits(demo: Vocabulary) -> None:
    """A repetition without end is completed shortly before `max_tokens`, as JSON is."""
    grammar = demo.compiler().answer(AnswerGrammar(regex="(?:la )+end"), starts_in_reasoning=False)
    text, _ = demo.repeat(grammar, ["la "], 40)
    assert text.startswith("la la la")
    assert text.endswith("la end")


@pytest.mark.parametrize(
    ("grammar", "told"),
    [
        ({"regex": "("}, "unclosed group"),
        ({"regex": r"[^\s\S]"}, "nothing satisfies it"),
        ({"regex": "(a{1000}){1000}"}, "it is too complex"),
        ({"grammar": "root ::= word"}, "Rule 'word' not found"),
        ({"grammar": "word ::= "}, "`p` cannot be used as a grammar"),
        ({"grammar": "root ::= " + "(" * 5000}, "it is nested too deep"),
        ({"grammar": 'start: ("a"'}, "Expected token ')'"),
        ({"grammar": "start: a\n" + "a: a\n" * MAX_RULES}, f"more than {MAX_RULES} rules"),
    ],
    ids=["regex", "nothing", "complex", "rule", "gbnf", "deep", "lark", "rules"],
)
def test_one_that_cannot_be_enforced_is_refused_with_the_reason(
    demo: Vocabulary, grammar: dict[str, Any], told: str
) -> None:
    """In words that its author knows, with the field, and before the compiler could be overrun."""
    with pytest.raises(InvalidRequest) as caught:
        demo.compiler().answer(AnswerGrammar(**grammar, param="p"), starts_in_reasoning=False)
    assert told in caught.value.message
    assert caught.value.param == "p"
