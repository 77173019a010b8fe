"""Output of a model that would never end is completed before its tokens run out."""

from __future__ import annotations

import json
from decimal import Decimal
from random import Random

import pytest
from jsonschema import Draft202012Validator
from mlx_lm.utils import load_tokenizer

from periscope.core import JSONObject, OutputFormat, ResponseFormat, Tool, ToolCallStyle, ToolChoice, ToolChoiceMode
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.structured.compiler import GrammarCompiler
from periscope.errors import InvalidRequest
from tests.engine.random_schemas import SchemaWriter
from tests.engine.vocabulary import Vocabulary

STRING: JSONObject = {"type": "string"}
TREE: JSONObject = {
    "type": "object",
    "properties": {"name": STRING, "kids": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["name", "kids"],
    "additionalProperties": False,
}


def object_of(**properties: JSONObject) -> JSONObject:
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


ENDLESS: dict[str, JSONObject] = {
    "a string": object_of(a=STRING),
    "strings": object_of(a=STRING, b=STRING, c=STRING),
    "an array of strings": object_of(a={"type": "array", "items": STRING}),
    "arrays in arrays": {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}},
    "anything": {"type": "object"},
    "any value": {},
    "a tree": TREE,
    "a choice": object_of(a={"anyOf": [{"type": "null"}, TREE, STRING]}),
    "required in a branch": {
        "type": "object",
        "properties": {"a": STRING, "b": STRING},
        "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
    },
    "a pattern": object_of(a={"type": "string", "pattern": "^[a-z]+-[0-9]+$"}),
    "a pattern anywhere": object_of(a={"type": "string", "pattern": "foo"}),
    "a pattern at the end": object_of(a={"type": "string", "pattern": r"\.(png|jpg)$"}),
    "digits anywhere": object_of(a={"type": "string", "pattern": r"\d{4}-\d{2}"}),
    "a pattern that needs escapes": object_of(a={"type": "string", "pattern": r'"\\'}),
    "two patterns anywhere": object_of(
        a={"type": "string", "allOf": [{"pattern": "foo"}, {"pattern": "bar"}]},
    ),
    "a pattern of a long string": object_of(a={"type": "string", "pattern": "foo", "minLength": 20}),
    "a pattern and a bound": object_of(a={"type": "string", "pattern": "foo", "maxLength": 60}),
    "long at least": object_of(a={"type": "string", "minLength": 20}),
    "an enum after a string": object_of(a=STRING, b={"enum": ["north", "south"]}),
    "a number after a string": object_of(a=STRING, b={"type": "number", "exclusiveMinimum": 0}),
    "tens after a string": object_of(a=STRING, b={"type": "integer", "minimum": 10, "multipleOf": 10}),
    "a date after a string": object_of(a=STRING, b={"type": "string", "format": "date-time"}),
}


@pytest.fixture(scope="module")
def demo() -> Vocabulary:
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


@pytest.fixture(scope="module")
def compiler(demo: Vocabulary) -> GrammarCompiler:
    return demo.compiler()


@pytest.mark.parametrize("wishes", ["a", "{", ",", "\\", '",'])
@pytest.mark.parametrize("schema", ENDLESS.values(), ids=list(ENDLESS))
def test_output_of_a_model_that_repeats_itself_is_complete(
    demo: Vocabulary, compiler: GrammarCompiler, schema: JSONObject, wishes: str
) -> None:
    """Within a hundred tokens the output is JSON that fits the schema, and the matcher reports excluded tokens."""
    grammar = compiler.json(ResponseFormat(schema), starts_in_reasoning=False)
    text, is_shortened = demo.repeat(grammar, [wishes, "a", "{", "[", ","], max_tokens=100)
    Draft202012Validator(schema).validate(json.loads(text))
    assert is_shortened or len(demo.ids(text)) < 100


@pytest.mark.parametrize("seed", range(12))
def test_output_for_random_schemas_is_complete(demo: Vocabulary, compiler: GrammarCompiler, seed: int) -> None:
    """For any enforceable schema, a model that repeats itself completes its output within 300 tokens."""
    random = Random(seed)
    schema = SchemaWriter(random).document()
    try:
        grammar = compiler.json(ResponseFormat(schema), starts_in_reasoning=False)
    except InvalidRequest:
        return
    for wish in ("a", "{", '"'):
        text, _ = demo.repeat(grammar, [wish, "x", ","], max_tokens=300)
        exact = json.loads(json.dumps(schema), parse_float=Decimal)  # a bound may be missed by less than floats tell
        Draft202012Validator(exact).validate(json.loads(text, parse_float=Decimal))


def test_an_answer_that_fits_is_not_changed(demo: Vocabulary, compiler: GrammarCompiler) -> None:
    """With a few more tokens than it needs, the model may write what it likes, even near the end."""
    schema = object_of(a=STRING, b={"type": "integer"}, c={"type": "array", "items": STRING})
    text = '{"a": "the quick brown fox", "b": 1234, "c": ["jumps over", "the lazy dog"]}'
    grammar = compiler.json(ResponseFormat(schema), starts_in_reasoning=False)
    tokens = demo.ids(text)
    matcher = grammar.new_matcher()
    for num_written, token in enumerate(tokens):
        assert token in demo.allowed(matcher, len(tokens) + 6 - num_written)
        matcher.consume(token)


def test_with_too_few_tokens_for_any_answer_nothing_is_changed(demo: Vocabulary, compiler: GrammarCompiler) -> None:
    """Three tokens cannot hold such an object, so the model writes what it likes until they are used up."""
    grammar = compiler.json(ResponseFormat(object_of(name=STRING, town=STRING)), starts_in_reasoning=False)
    text, is_shortened = demo.repeat(grammar, ["a"], max_tokens=3)
    assert not is_shortened
    assert '{"name": "'.startswith(text) or text.startswith('{"name": "')


@pytest.mark.parametrize("starts_in_reasoning", [True, False])
def test_reasoning_that_never_ends_is_followed_by_an_answer(demo: Vocabulary, *, starts_in_reasoning: bool) -> None:
    """Reasoning whose end marker is several tokens is closed while there is room for the answer."""
    output_format = OutputFormat(think_start="[THINK]", think_end="[/THINK]")
    schema = object_of(a=STRING)
    grammar = demo.compiler(output_format).json(ResponseFormat(schema), starts_in_reasoning=starts_in_reasoning)
    opening = [] if starts_in_reasoning else [*demo.ids("[THINK]")]
    matcher, out = grammar.new_matcher(), b""
    for num_left in range(80, 0, -1):
        allowed = demo.allowed(matcher, num_left)
        wish = opening.pop(0) if opening else demo.ids("a")[0]
        others = [token for token in allowed if token not in demo.eos]
        if not others:
            break
        token = wish if wish in allowed else others[0]
        out += demo.table.text(token).utf8
        matcher.consume(token)
    thoughts, answer = out.decode().split("[/THINK]")
    assert thoughts.count("a") > 20
    Draft202012Validator(schema).validate(json.loads(answer))
    assert matcher.excluded_bits is not None


def test_a_forced_call_is_complete(demo: Vocabulary) -> None:
    """The arguments of a call that the model would continue for ever are JSON, and its end marker is written, too."""
    output_format = OutputFormat(
        tool_start="<tool_call>",
        tool_end="</tool_call>",
        parse_tool_call=lambda text, _tools: json.loads(text),
        tool_call_style=ToolCallStyle.HERMES,
    )
    tool = Tool("save", "Saves a text.", object_of(text=STRING))
    grammar = demo.compiler(output_format).tool_call(
        [tool], ToolChoice(ToolChoiceMode.REQUIRED), starts_in_reasoning=False
    )
    text, is_shortened = demo.repeat(grammar, ["a"], max_tokens=120)
    inside = text.removeprefix("<tool_call>").removesuffix("</tool_call>")
    assert json.loads(inside)["arguments"]["text"].strip("a") == ""
    assert text.endswith("</tool_call>")
    assert is_shortened
