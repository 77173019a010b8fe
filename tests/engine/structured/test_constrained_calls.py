"""Calls that a grammar constrains: whatever a model prefers to write, the parsed output keeps what was promised."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from jsonschema import Draft202012Validator
from mlx_lm.utils import load_tokenizer

from periscope.core import (
    AnswerGrammar,
    JSONObject,
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
from periscope.engine.text.thinking_format import thinking_format
from periscope.errors import InvalidRequest
from periscope.parsing.registry import parser_for
from tests.engine.vocabulary import Vocabulary
from tests.parsing.events import Called, events_from
from tests.tiny_models import CHAT_TEMPLATE, write_tokenizer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.parsing.events import Event


NUM_SEEDS = 40


def marked(module: str, think: tuple[str, str], style: ToolCallStyle = ToolCallStyle.MARKED) -> OutputFormat:
    parser = importlib.import_module(f"mlx_lm.tool_parsers.{module}")
    return OutputFormat(*think, parser.tool_call_start, parser.tool_call_end, parser.parse_tool_call, style)


THINK = ("<think>", "</think>")
FAMILIES = {
    "hermes": marked("json_tools", THINK, ToolCallStyle.HERMES),
    "llama": OutputFormat(tool_call_style=ToolCallStyle.LLAMA),
    "llama that reasons": OutputFormat(*THINK, tool_call_style=ToolCallStyle.LLAMA),
    "mistral": marked("mistral", ("[THINK]", "[/THINK]"), ToolCallStyle.MISTRAL),
    "older mistral": marked("mistral", ("[THINK]", "[/THINK]")),
    "harmony": OutputFormat("<|channel|>analysis<|message|>", "<|end|>", tool_call_style=ToolCallStyle.HARMONY),
    "qwen coder": marked("qwen3_coder", THINK),
    "gemma": marked("gemma4", ("<|channel>thought", "<channel|>")),
    "kimi": marked("kimi_k2", THINK),
}
NO_TOOLS = OutputFormat()
MARKERS = (
    *("<think>", "</think>", "[THINK]", "[/THINK]", "<|channel>", "<channel|>", "<tool_call>", "</tool_call>"),
    *("[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<|eom_id|>", "<|eot_id|>", "<|tool_call>", "<tool_call|>"),
    *("<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|call|>", "<|return|>"),
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
)
#: family -> a call as its models write it, or are made to.
CALLS = {
    "hermes": '<tool_call>\n{"name": "NAME", "arguments": {}}\n</tool_call>',
    "llama": '{"name": "NAME", "parameters": {}}',
    "mistral": "[TOOL_CALLS]NAME[ARGS]{}",
    "older mistral": '[TOOL_CALLS][{"name": "NAME", "arguments": {}}]',
    "harmony": "<|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{}",
    "gemma": '<|tool_call>\n{"name": "NAME", "arguments": {}}\n<tool_call|>',
    "kimi": '<|tool_calls_section_begin|>\n{"name": "NAME", "arguments": {}}\n<|tool_calls_section_end|>',
}
CALLS |= {"llama that reasons": CALLS["llama"], "qwen coder": CALLS["hermes"]}
CALLS["no tools"] = '[{"name": "NAME", "arguments": {}}]'
#: Each says something that no client may be told, or opens the way to say it.
WISHES = (
    *MARKERS,
    *("<|channel|>final<|message|>", "<|end|><|start|>assistant", "<|channel|>analysis<|message|>"),
    *('{"id": "', '{"city": "', '"}', '", "days": 3}', "}", "\n", " ", "; ", "[", "well "),
    '{"a": "<tool_call>{", ":1,": "</tool_call>"}',
)


def wishes(family: str) -> list[str]:
    """Pieces that a model of this family might write: correct and wrong calls of all families."""
    calls = [
        call.replace("NAME", name).replace("{}", arguments)
        for call in [*CALLS.values(), *[CALLS[family]] * 10]
        for name in ("get", "put", "fly")
        for arguments in ('{"city": "Oslo", "days": 2}', '{"a": 1}')
    ]
    return [*WISHES, *calls, *['{"id": "x", "n": 1}'] * 20]


STRICT = Tool(
    "get",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 30}, "days": {"type": "integer", "maximum": 9}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
    is_strict=True,
)
ARGUMENTS = Draft202012Validator(STRICT.parameters)
LOOSE = Tool("put", parameters={"type": "object", "properties": {"n": {"not": {}}}})
TOOLS = (STRICT, LOOSE)
ANSWER: JSONObject = {
    "type": "object",
    "properties": {"id": {"type": "string", "maxLength": 60}, "n": {"enum": [1, 2]}},
    "required": ["id"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module", params=["tokens", "spelled"])
def letters(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vocabulary:
    """A vocabulary with one token per byte, with or without the markers of all families as tokens."""
    folder = tmp_path_factory.mktemp("letters")
    write_tokenizer(folder, CHAT_TEMPLATE, MARKERS if request.param == "tokens" else ())
    tokenizer = load_tokenizer(folder)
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


def told(
    family: str, text: str, choice: ToolChoice = ToolChoice(), answer: ResponseFormat | AnswerGrammar | None = None
) -> list[Event]:
    """The events of a completion except its reasoning, which must be the same for the whole and for single letters."""
    spec = OutputSpec(TOOLS, choice, answer)
    form = spec.format_for(FAMILIES.get(family, NO_TOOLS))
    events = events_from(parser_for(form, spec, lambda: "id"), [text])
    assert events == events_from(parser_for(form, spec, lambda: "id"), text)
    return [event for event in events if not isinstance(event, ReasoningDelta)]


def check_calls(calls: Sequence[Event]) -> None:
    for event in calls:
        assert isinstance(event, Called)
        arguments = json.loads(event.call.arguments)
        if event.call.name == "get":
            ARGUMENTS.validate(arguments)
        else:
            assert event.call.name == "put"
            assert isinstance(arguments, dict)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_free_answer_holds_no_wrong_call(letters: Vocabulary, family: str) -> None:
    """Whatever surrounds them, calls are of offered tools, and the arguments of strict tools fit."""
    grammar = letters.compiler(FAMILIES[family]).text(TOOLS, is_parallel=True, starts_in_reasoning=False)
    num_calls = num_texts = 0
    for seed in range(NUM_SEEDS):
        text = letters.scheme(grammar, Random(seed), wishes(family))
        if text is not None:
            events = told(family, text)
            calls = [event for event in events if isinstance(event, Called)]
            check_calls(calls)
            num_calls += len(calls)
            num_texts += len(calls) < len(events)
    assert num_calls > 3
    assert num_texts > 3


@pytest.mark.parametrize("family", FAMILIES)
def test_an_answer_beside_tools_is_calls_or_json(letters: Vocabulary, family: str) -> None:
    """It is only calls, or only JSON that fits the schema."""
    answer = ResponseFormat(ANSWER)
    grammar = letters.compiler(FAMILIES[family]).json(answer, TOOLS, starts_in_reasoning=False)
    kinds = []
    for seed in range(NUM_SEEDS):
        text = letters.scheme(grammar, Random(seed), wishes(family))
        if text is not None:
            events = told(family, text, ToolChoice(), answer)
            kinds.append(type(events[0]))
            if isinstance(events[0], TextDelta):
                (event,) = events
                assert isinstance(event, TextDelta)
                Draft202012Validator(ANSWER).validate(json.loads(event.text))
            else:
                check_calls(events)
    assert {*kinds} == {TextDelta, Called}


@pytest.mark.parametrize("family", [*FAMILIES, "no tools"])
def test_a_forced_answer_is_calls(letters: Vocabulary, family: str) -> None:
    """It is one or more calls and nothing else, all with arguments that fit."""
    choice = ToolChoice(ToolChoiceMode.REQUIRED)
    grammar = letters.compiler(FAMILIES.get(family, NO_TOOLS)).tool_call([STRICT], choice, starts_in_reasoning=False)
    texts = [letters.scheme(grammar, Random(seed), wishes(family)) for seed in range(NUM_SEEDS)]
    whole = [text for text in texts if text is not None]
    assert len(whole) > NUM_SEEDS // 4
    for text in whole:
        events = told(family, text, choice)
        assert events
        check_calls(events)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", [ToolChoiceMode.AUTO, ToolChoiceMode.REQUIRED])
def test_calls_are_of_allowed_tools(letters: Vocabulary, family: str, mode: ToolChoiceMode) -> None:
    """`allowed_tools`: the model is told of all, and what it writes calls none but these, whatever it would rather."""
    choice = ToolChoice(mode, allowed=frozenset({"put"}))
    tools = (replace(STRICT, is_strict=False), replace(LOOSE, parameters={}))
    spec = OutputSpec(tools, choice)
    compiler = letters.compiler(FAMILIES[family])
    grammar = compiler.constraint(spec, starts_in_reasoning=False).grammar
    assert grammar is not None
    good, bad = (CALLS[family].replace("NAME", name) for name in ("put", "get"))
    assert letters.accepts(grammar, good)
    assert not letters.accepts(grammar, bad)
    called = []
    for seed in range(NUM_SEEDS // 4):
        text = letters.scheme(grammar, Random(seed), wishes(family))
        called += [event.call.name for event in told(family, text or "", choice) if isinstance(event, Called)]
    assert set(called) <= {"put"}
    everything = ToolChoice(allowed=frozenset({"put", "get"}))
    assert compiler.constraint(OutputSpec(tools, everything), starts_in_reasoning=False).grammar is None


@pytest.mark.parametrize("family", [family for family in FAMILIES if "llama" not in family])
@pytest.mark.parametrize(
    ("answer", "fitting"),
    [
        (AnswerGrammar(regex="[a-z<>_]{3,12}|[A-Z]+"), ["abc", "<tool", "XY"]),
        (AnswerGrammar(regex="(?s:.+)"), ["abc", "a <tool ", "[1"]),
        (AnswerGrammar(choices=("heads", "<b>")), ["heads", "<b>"]),
    ],
)
def test_an_answer_beside_tools_is_calls_or_fits_the_regex(
    letters: Vocabulary, family: str, answer: AnswerGrammar, fitting: list[str]
) -> None:
    """What begins as a call is one, with arguments that fit, even if the expression allows anything."""
    spec = OutputSpec(TOOLS, response_format=answer)
    constraint = letters.compiler(FAMILIES[family]).constraint(spec, starts_in_reasoning=False)
    assert constraint.grammar is not None
    final = "<|channel|>final<|message|>" if family == "harmony" else ""
    call = CALLS[family].replace("NAME", "get").replace("{}", GOOD)
    for text in (*(final + text for text in fitting), call):
        assert letters.accepts(constraint.grammar, text), text
    for wrong in (call.replace("Oslo", 40 * "x"), call.replace("get", "fly")):
        assert not letters.accepts(constraint.grammar, wrong), wrong
    kinds = set()
    for seed in range(NUM_SEEDS // 2):
        written = letters.scheme(constraint.grammar, Random(seed), wishes(family))
        if written is None:
            continue
        events = told(family, written, ToolChoice(), answer)
        kinds |= {type(event) for event in events}
        said = [event for event in events if not isinstance(event, Called)]
        check_calls([event for event in events if isinstance(event, Called)])
        if said:
            (event,) = events
            assert isinstance(event, TextDelta)
            assert event.text in answer.choices or re.fullmatch(answer.regex or "$.", event.text)
    assert Called in kinds


@pytest.mark.parametrize("family", ["hermes", "mistral", "gemma", "qwen coder"])
@pytest.mark.parametrize("tools", [(), TOOLS], ids=["alone", "beside tools"])
def test_an_exact_answer_begins_with_its_first_character(
    letters: Vocabulary, family: str, tools: tuple[Tool, ...]
) -> None:
    """Models like to end a line first; only behind reasoning that is no part of the answer."""
    form = FAMILIES[family]
    grammar = letters.compiler(form).answer(AnswerGrammar(regex="[a-z]+"), tools, starts_in_reasoning=False)
    assert letters.accepts(grammar, "abc")
    assert letters.accepts(grammar, f"{form.think_start}Hm.{form.think_end}\n\nabc")
    assert not letters.accepts(grammar, "\nabc")


def test_an_answer_s_grammar_beside_tools_is_refused_where_it_may_look_like_a_call(letters: Vocabulary) -> None:
    """A choice that begins as a call, any grammar, and models whose calls have no marker."""
    with pytest.raises(InvalidRequest, match="begins with `<tool_call>`"):
        letters.compiler(FAMILIES["hermes"]).answer(
            AnswerGrammar(choices=("\n<tool_call>",)), TOOLS, starts_in_reasoning=False
        )
    with pytest.raises(InvalidRequest, match="cannot stand beside `tools` with this model"):
        letters.compiler(FAMILIES["llama"]).answer(AnswerGrammar(regex="a"), TOOLS, starts_in_reasoning=False)
    with pytest.raises(InvalidRequest, match="send a regular expression"):
        OutputSpec(TOOLS, response_format=AnswerGrammar(grammar='root ::= "a"'))


GOOD = '{"city": "Oslo", "days": 2}'
NORMAL = {
    "hermes": [
        "<think>\nHm.\n</think>\n\nI look.\n" + CALLS["hermes"] + "\n" + CALLS["hermes"],
        CALLS["hermes"] + "\nDone.",
        "a <b> <tool <tool_ <tool_call",
    ],
    "llama": [CALLS["llama"], CALLS["llama"] + "; " + CALLS["llama"], "I look.<|python_tag|>" + CALLS["llama"]],
    "mistral": ["I look." + CALLS["mistral"] + CALLS["mistral"], "[THINK]Hm.[/THINK]It [is] so [TOOL_CALL]."],
    "older mistral": ["I look." + CALLS["older mistral"], "[1, 2]"],
    "harmony": [
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant" + CALLS["harmony"],
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>commentary<|message|>I look.<|end|>"
        "<|start|>assistant" + CALLS["harmony"],
        "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>a < b",
    ],
    "gemma": ["<|channel>thought\nHm.<channel|>I look." + CALLS["gemma"], "a < b"],
}


@pytest.mark.parametrize("family", NORMAL)
def test_correct_output_of_a_model_is_not_changed(letters: Vocabulary, family: str) -> None:
    """Text, reasoning and correct calls are allowed, alone and together; the same with wrong calls is not."""
    grammar = letters.compiler(FAMILIES[family]).text(TOOLS, is_parallel=True, starts_in_reasoning=False)
    for text in [*NORMAL[family], "", "Well.\n\n", '{"a": 1}', '{"n', "[[]]"]:
        if family != "harmony" or text in NORMAL[family]:
            assert letters.accepts(grammar, text.replace("NAME", "get").replace("{}", GOOD)), text
        if "NAME" in text:
            assert letters.accepts(grammar, text.replace("NAME", "put").replace("{}", '{"a": [1]}'))
            assert not letters.accepts(grammar, text.replace("NAME", "fly").replace("{}", GOOD))
            assert not letters.accepts(grammar, text.replace("NAME", "get").replace("{}", '{"city": 1, "days": 2}'))


@pytest.mark.parametrize("family", NORMAL)
def test_without_parallel_calls_there_is_one_call(letters: Vocabulary, family: str) -> None:
    """`parallel_tool_calls: false` allows one call, and not a second."""
    grammar = letters.compiler(FAMILIES[family]).text(TOOLS, is_parallel=False, starts_in_reasoning=False)
    call, between = CALLS[family].replace("NAME", "get").replace("{}", GOOD), {"hermes": "\n", "llama": "; "}
    assert letters.accepts(grammar, call)
    assert not letters.accepts(grammar, call + between.get(family, "") + call)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"properties": {"name": {}, "parameters": {}}}])
def test_llama_s_json_must_not_look_like_a_strict_call(letters: Vocabulary, schema: JSONObject) -> None:
    """Its calls have no marker, so an answer that may begin like one is refused, unless no tool is strict."""
    compiler, answer = letters.compiler(FAMILIES["llama"]), ResponseFormat(schema, "response_format")
    with pytest.raises(InvalidRequest) as caught:
        compiler.json(answer, TOOLS, starts_in_reasoning=False)
    assert caught.value.param == "response_format"
    assert "strict tool `get`" in caught.value.message
    assert letters.accepts(compiler.json(answer, [LOOSE], starts_in_reasoning=False), '{"name": "get"}')


@pytest.mark.parametrize(("family", "name"), [("harmony", "look up"), ("harmony", "a<|end|>")])
def test_a_name_that_cannot_be_written_is_refused(letters: Vocabulary, family: str, name: str) -> None:
    """A name that would end its header is a client's error."""
    with pytest.raises(InvalidRequest, match="Rename the tool") as caught:
        letters.compiler(FAMILIES[family]).text([Tool(name)], is_parallel=True, starts_in_reasoning=False)
    assert caught.value.param == "tools"


def test_mistral_names_beyond_its_syntax_are_written_in_json(letters: Vocabulary) -> None:
    """Names that its newer syntax cannot hold are written in Mistral's older array, which the same parser reads."""
    grammar = letters.compiler(FAMILIES["mistral"]).text([Tool("a.b")], is_parallel=True, starts_in_reasoning=False)
    assert letters.accepts(grammar, 'So: [TOOL_CALLS][{"name": "a.b", "arguments": {}}]')
    assert not letters.accepts(grammar, "So: [TOOL_CALLS]a.b[ARGS]{}")


def test_only_strict_tools_must_be_enforceable(letters: Vocabulary) -> None:
    """The schema of a tool that is not strict is ignored; one of a strict tool is refused by its name."""
    compiler = letters.compiler(FAMILIES["hermes"])
    compiler.text([LOOSE], is_parallel=True, starts_in_reasoning=False)
    with pytest.raises(InvalidRequest, match="Tool `put`: The keyword `not`"):
        compiler.text([STRICT, replace(LOOSE, is_strict=True)], is_parallel=True, starts_in_reasoning=False)
    endless = Tool("loop", parameters={"$ref": "#"}, is_strict=True)
    with pytest.raises(InvalidRequest, match=r"Tool `loop`: .* nothing satisfies it"):
        compiler.text([STRICT, endless], is_parallel=True, starts_in_reasoning=False)


@pytest.mark.parametrize("family", ["harmony", "llama that reasons", "hermes", "mistral"])
@pytest.mark.parametrize("kind", ["json", "calls"])
def test_a_grammar_takes_the_ending_of_thinking_and_goes_on(letters: Vocabulary, family: str, kind: str) -> None:
    """Whole before an answer; before calls, gpt-oss chooses its channel itself. In the answer it takes no marker."""
    form = FAMILIES[family]
    known = thinking_format(form, letters.ids, None, reasoning_keys=("reasoning_content",), message="Enough.")
    assert known is not None
    choice = ToolChoice(ToolChoiceMode.REQUIRED) if kind == "calls" else ToolChoice(ToolChoiceMode.NONE)
    spec = OutputSpec((STRICT,), choice, None if kind == "calls" else ResponseFormat(ANSWER))
    constraint = letters.compiler(form).constraint(spec, starts_in_reasoning=False)
    assert constraint.grammar is not None
    matcher = constraint.grammar.new_matcher()
    ending = (known.endings_before_calls if kind == "calls" else known.endings)[0]
    for token in letters.ids(known.start + "Hm"):
        matcher.consume(token)
    assert matcher.num_accepted(ending) == len(ending)
    for token in ending:
        matcher.consume(token)
    answer = (
        CALLS[family].replace("NAME", "get").replace("{}", '{"city": "Oslo", "days": 2}') if kind == "calls" else "{"
    )
    ids = letters.ids(answer)
    assert matcher.num_accepted(ids) == len(ids)
    matcher.consume(ids[0])
    assert matcher.num_accepted(ending) <= 1  # a newline, perhaps, and never the marker
