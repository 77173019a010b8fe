"""Structured output fits its schema, whatever a model would rather write."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from mlx_lm.utils import load_tokenizer
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from periscope.core import (
    JSONObject,
    OutputFormat,
    ResponseFormat,
    Tool,
    ToolCallStyle,
    ToolChoice,
    ToolChoiceMode,
)
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.structured.json_schema import MAX_FOLLOWED_LEVELS, check_enforceable
from periscope.engine.structured.token_bits import apply_bits
from periscope.errors import GenerationFailed, InvalidRequest
from tests.engine.random_schemas import SchemaWriter
from tests.engine.vocabulary import Vocabulary

THINKING = OutputFormat(think_start="<think>", think_end="</think>")
HERMES = OutputFormat(
    tool_start="<tool_call>",
    tool_end="</tool_call>",
    parse_tool_call=lambda _text, _tools: {},
    tool_call_style=ToolCallStyle.HERMES,
)
HARMONY = OutputFormat(tool_call_style=ToolCallStyle.HARMONY)
HARMONY_TOKENS = ["<|start|>", "<|end|>", "<|channel|>", "<|message|>", "<|return|>"]
#: Words of llguidance that say nothing to a client.
INTERNALS = re.compile(r"NoExtension|coerce|lark|json_\d|guidance|verbose|lexer|Regex \(|f64|\d\(\d", re.IGNORECASE)
ANY_OBJECT = ResponseFormat({"type": "object"})
WEATHER = Tool(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {"city": {"$ref": "#/$defs/city"}},
        "required": ["city"],
        "additionalProperties": False,
        "$defs": {"city": {"enum": ["Rome", "Oslo"]}},
    },
)
NOW = Tool("now")


@pytest.fixture(scope="module")
def demo() -> Vocabulary:
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


@pytest.fixture(scope="module")
def letters(tiny_text_model: Path) -> Vocabulary:
    """A vocabulary with one token per byte, the markers of several families, and two end-of-sequence tokens."""
    tokenizer = load_tokenizer(tiny_text_model)
    markers = ["<think>", *HARMONY_TOKENS, AddedToken("</think>", special=False, normalized=False)]
    tokenizer.add_special_tokens({"additional_special_tokens": markers})
    eos = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|return|>")}
    return Vocabulary(tokenizer, frozenset(eos))


@pytest.fixture(scope="module")
def vocabularies(demo: Vocabulary, letters: Vocabulary) -> dict[str, Vocabulary]:
    return {"demo": demo, "letters": letters}


def drawn_schemas() -> Iterator[tuple[int, JSONObject]]:
    for seed in range(50):
        yield seed, SchemaWriter(Random(seed)).document()


@pytest.mark.parametrize("which", ["demo", "letters"])
def test_random_tokens_make_valid_json_of_any_schema(vocabularies: dict[str, Vocabulary], which: str) -> None:
    """For each of fifty drawn schemas, random choices among the allowed tokens give JSON that a validator accepts."""
    vocabulary = vocabularies[which]
    compiler = vocabulary.compiler()
    num_refused = 0
    for seed, schema in drawn_schemas():
        Draft202012Validator.check_schema(schema)
        try:
            grammar = compiler.json(ResponseFormat(schema), starts_in_reasoning=False)
        except InvalidRequest:
            num_refused += 1
            continue
        value = json.loads(vocabulary.ramble(grammar, Random(seed)))
        Draft202012Validator(schema).validate(value)
        json.dumps(value, ensure_ascii=False).encode()  # raises on half a surrogate pair
    assert num_refused <= 3


def test_any_object_is_valid_json_and_written_on_one_line(demo: Vocabulary) -> None:
    """`json_object` gives an object with the spaces of ordinary JSON, which cannot contain endless whitespace."""
    grammar = demo.compiler().json(ANY_OBJECT, starts_in_reasoning=False)
    assert all(isinstance(json.loads(demo.ramble(grammar, Random(seed))), dict) for seed in range(5))
    assert demo.accepts(grammar, '{"a": [1, {"b": null}], "c": "x y"}')
    assert not demo.accepts(grammar, '{"a":  1}')
    assert not demo.accepts(grammar, "[1]")


def test_the_end_is_allowed_exactly_when_the_output_is_complete(letters: Vocabulary) -> None:
    """Before the closing brace no end-of-sequence token is allowed; after it all of them are, and nothing else."""
    matcher = letters.compiler().json(ANY_OBJECT, starts_in_reasoning=False).new_matcher()
    for token in letters.ids('{"a": 1}'):
        assert not letters.eos & set(letters.allowed(matcher))
        matcher.consume(token)
    assert set(letters.allowed(matcher)) == letters.eos


@pytest.mark.parametrize(
    ("change", "is_open"),
    [
        ({}, False),
        ({"additionalProperties": None}, False),
        ({"additionalProperties": False}, False),
        ({"additionalProperties": True}, True),
        ({"additionalProperties": {"type": "boolean"}}, True),
        ({"patternProperties": {"^b": {}}}, True),
        ({"required": ["a", "b"]}, True),
        ({"minProperties": 2}, True),
        ({"allOf": [{"properties": {"b": {"type": "boolean"}}}]}, True),
    ],
)
def test_an_object_has_the_properties_that_it_names(demo: Vocabulary, change: dict[str, Any], is_open: bool) -> None:
    """Only named properties are allowed unless the schema allows others, because a model may add them without end."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], **change}
    grammar = demo.compiler().json(ResponseFormat(schema), starts_in_reasoning=False)
    assert demo.accepts(grammar, '{"a": 1, "b": true}') == is_open


def test_a_property_may_have_the_empty_name(demo: Vocabulary) -> None:
    """It counts as a property, not as all of `properties`."""
    schema = {"type": "object", "properties": {"": {"type": "boolean"}}, "required": [""]}
    compiler = demo.compiler()
    assert demo.accepts(compiler.json(ResponseFormat(schema), starts_in_reasoning=False), '{"": true}')
    assert not demo.accepts(compiler.json(ResponseFormat(schema), starts_in_reasoning=False), '{"": 1}')


def test_equal_schemas_are_compiled_once(demo: Vocabulary) -> None:
    """An equal schema gives the same grammar object; another order of properties or open reasoning gives another."""
    compiler = demo.compiler(THINKING)
    forward = {"type": "object", "properties": {"a": {}, "b": {}}}
    backward = {"type": "object", "properties": {"b": {}, "a": {}}}
    first = compiler.json(ResponseFormat(forward), starts_in_reasoning=False)
    assert compiler.json(ResponseFormat({**forward}), starts_in_reasoning=False) is first
    assert compiler.json(ResponseFormat(backward), starts_in_reasoning=False) is not first
    assert compiler.json(ResponseFormat(forward), starts_in_reasoning=True) is not first


def test_the_cache_is_bounded(demo: Vocabulary) -> None:
    """The least recently used grammar is dropped when there are too many."""
    compiler = demo.compiler()
    first = compiler.json(ANY_OBJECT, starts_in_reasoning=False)
    for number in range(32):
        compiler.json(ResponseFormat({"const": number}), starts_in_reasoning=False)
    assert compiler.json(ANY_OBJECT, starts_in_reasoning=False) is not first


def test_matchers_of_one_grammar_are_independent(demo: Vocabulary) -> None:
    """Rows with the same schema do not share their state."""
    grammar = demo.compiler().json(ANY_OBJECT, starts_in_reasoning=False)
    one, other = grammar.new_matcher(), grammar.new_matcher()
    before = demo.allowed(other)
    one.consume(demo.ids("{")[0])
    assert demo.allowed(other) == before != demo.allowed(one)


def test_a_token_that_was_not_allowed_fails_its_row(demo: Vocabulary) -> None:
    """A matcher that consumes a forbidden token raises, now and later, instead of allowing any token."""
    matcher = demo.compiler().json(ANY_OBJECT, starts_in_reasoning=False).new_matcher()
    with pytest.raises(GenerationFailed):
        matcher.consume(demo.ids("hello")[0])
    with pytest.raises(GenerationFailed):
        matcher.allowed_bits()


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "object", "properties": {"a": {"not": {}}}}, "`not` at `/properties/a`"),
        ({"enum": []}, "nothing satisfies it"),
        ({"properties": {"a": {"items": {"pattern": "("}}}}, "At `/properties/a/items`: "),
        ({"properties": {"a": {"items": {"type": "strin"}}}}, "`type` at `/properties/a/items` must be one of array,"),
        ({"type": "object", "required": "a"}, "`required` must be a list"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "minimum (3) is greater than maximum (2)"),
        ({"$ref": "#/$defs/nowhere"}, "nowhere"),
        ({"$ref": "#"}, "nothing satisfies it"),
        ({"type": "object", "properties": {"next": {"$ref": "#"}}, "required": ["next"]}, "nothing satisfies it"),
        ({"oneOf": [{"type": "string"}, {"minLength": 2}]}, "no value can fit two of its branches"),
        ({"type": "object", "properties": {f"p{number}": {} for number in range(1500)}}, "too complex"),
        ({"const": float("nan")}, "number that JSON has not"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused(demo: Vocabulary, schema: JSONObject, said: str) -> None:
    """The error names its place in the request and the reason; no rule is left out."""
    with pytest.raises(InvalidRequest) as caught:
        demo.compiler().json(ResponseFormat(schema, "response_format.json_schema.schema"), starts_in_reasoning=False)
    assert caught.value.param == "response_format.json_schema.schema"
    assert said in caught.value.message
    assert not INTERNALS.search(caught.value.message)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "(a{1000}){1000}{1000}"},
        {"type": "string", "pattern": "^[ab]*a[ab]{25}$"},
        {"enum": [f"value {number}" for number in range(10_000)]},
        {"type": "array", "items": {"type": "string"}, "minItems": 100_000},
    ],
)
def test_huge_but_simple_schemas_work(demo: Vocabulary, schema: JSONObject) -> None:
    """Patterns on which other engines fail and long lists of values give a mask after a few tokens."""
    matcher = demo.compiler().json(ResponseFormat(schema), starts_in_reasoning=False).new_matcher()
    for _ in range(5):
        matcher.consume(demo.allowed(matcher)[-1])
    assert demo.allowed(matcher)


@pytest.mark.parametrize("keyword", ["prefixItems", "anyOf", "allOf"])
def test_the_deepest_schema_that_is_let_in_ends_no_process(demo: Vocabulary, keyword: str) -> None:
    """The compiler follows references by recursion; a stack of the size that threads have is enough for it."""
    below: JSONObject = {}
    for number in range(MAX_FOLLOWED_LEVELS // 50):
        level: JSONObject = {"$ref": f"#/$defs/d{number - 1}"} if number else {"type": "integer"}
        for _ in range(48):
            level = {keyword: [level]}
        below[f"d{number}"] = level
    schema: JSONObject = {"$defs": below, "$ref": f"#/$defs/d{len(below) - 1}"}
    check_enforceable(schema, "here")
    with ThreadPoolExecutor(1) as executor:
        told = executor.submit(demo.compiler().json, ResponseFormat(schema), starts_in_reasoning=False)
        assert told.exception() is None or isinstance(told.exception(), InvalidRequest)


def test_open_reasoning_is_free_but_cannot_end_the_completion(letters: Vocabulary) -> None:
    """Inside reasoning all tokens but the end of the completion are allowed; after its end marker only JSON is."""
    matcher = letters.compiler(THINKING).json(ANY_OBJECT, starts_in_reasoning=True).new_matcher()
    for token in letters.ids("why {not"):
        allowed = set(letters.allowed(matcher))
        assert not letters.eos & allowed
        assert {*letters.ids("az{}\n"), *letters.ids("</think>")} <= allowed
        matcher.consume(token)
    matcher.consume(*letters.ids("</think>"))
    assert letters.allowed(matcher) == sorted(letters.ids("{\n"))


@pytest.mark.parametrize("which", ["demo", "letters"])
def test_an_end_marker_ends_reasoning_as_one_token_or_several(vocabularies: dict[str, Vocabulary], which: str) -> None:
    """The marker counts as one token, in pieces, and in a token that also has the answer's first characters."""
    vocabulary = vocabularies[which]
    grammar = vocabulary.compiler(THINKING).json(ANY_OBJECT, starts_in_reasoning=True)
    spelled = [token for part in ("</th", "ink", ">") for token in vocabulary.ids(part)]
    matcher = grammar.new_matcher()
    for token in [*vocabulary.ids("so"), *spelled, *vocabulary.ids('\n\n{"a": 1}')]:
        matcher.consume(token)
    assert set(vocabulary.allowed(matcher)) == vocabulary.eos
    assert vocabulary.accepts(grammar, "so </think>{}")
    assert not vocabulary.accepts(grammar, "so </think>well {}")


def test_the_model_may_open_reasoning_itself(letters: Vocabulary) -> None:
    """If the prompt leaves open whether to reason, both ways lead to JSON, and half of a marker to neither."""
    grammar = letters.compiler(THINKING).json(ANY_OBJECT, starts_in_reasoning=False)
    assert letters.accepts(grammar, "<think>hm</think>\n\n{}")
    assert letters.accepts(grammar, "{}")
    assert not letters.accepts(grammar, "<think>hm {}")
    assert not letters.accepts(grammar, "hm {}")


def test_gpt_oss_writes_json_in_its_final_channel(letters: Vocabulary) -> None:
    """In Harmony's channels reasoning comes first or not at all, and the channel of the answer holds only JSON."""
    grammar = letters.compiler(HARMONY).json(ANY_OBJECT, starts_in_reasoning=False)
    analysis = "<|channel|>analysis<|message|>hm<|end|><|start|>assistant"
    assert letters.accepts(grammar, analysis + '<|channel|>final<|message|>{"a": 1}')
    assert letters.accepts(grammar, '<|channel|>final<|message|>{"a": 1}')
    assert not letters.accepts(grammar, analysis + "<|channel|>final<|message|>well {}")
    assert not letters.accepts(grammar, "{}")


def forced(*, name: str | None = None, is_parallel: bool = True) -> ToolChoice:
    return ToolChoice(ToolChoiceMode.REQUIRED, name, is_parallel)


def test_forced_calls_have_the_model_s_own_syntax(demo: Vocabulary) -> None:
    """A model of the Hermes family writes one or more calls between its markers, each fitting its tool's schema."""
    grammar = demo.compiler(HERMES).tool_call([WEATHER, NOW], forced(), starts_in_reasoning=False)
    rome = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
    assert demo.accepts(grammar, rome)
    assert demo.accepts(grammar, f'{rome}\n<tool_call>\n{{"name": "now", "arguments": {{}}}}\n</tool_call>')
    assert not demo.accepts(grammar, rome.replace("Rome", "Paris"))
    assert not demo.accepts(grammar, rome.replace("get_weather", "other"))
    assert not demo.accepts(grammar, f"Sure. {rome}")
    assert demo.accepts(grammar, "\n".join([rome] * 16))
    assert not demo.accepts(grammar, "\n".join([rome] * 17))
    for seed in range(5):
        calls = demo.ramble(grammar, Random(seed)).split("\n</tool_call>")
        texts = [call.strip().removeprefix("<tool_call>\n") for call in calls]
        assert texts.pop() == ""
        assert {json.loads(text)["name"] for text in texts} <= {"get_weather", "now"}


@pytest.mark.parametrize("starts_in_reasoning", [False, True])
def test_forced_calls_of_other_models_are_a_json_array(letters: Vocabulary, *, starts_in_reasoning: bool) -> None:
    """A model with another syntax writes a bare array, after its reasoning if it has any."""
    grammar = letters.compiler(THINKING).tool_call([WEATHER, NOW], forced(), starts_in_reasoning=starts_in_reasoning)
    call = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    before = "hm</think>" if starts_in_reasoning else ""
    assert letters.accepts(grammar, f'{before}[{call}, {{"name": "now", "arguments": {{"x": 1}}}}]')
    assert not letters.accepts(grammar, f"{before}[]")


def test_a_named_tool_is_the_only_one(demo: Vocabulary) -> None:
    """With a name no other tool can be called, and without parallel calls only one call is possible."""
    grammar = demo.compiler().tool_call(
        [WEATHER, NOW], forced(name="now", is_parallel=False), starts_in_reasoning=False
    )
    assert demo.accepts(grammar, '[{"name": "now", "arguments": {}}]')
    assert not demo.accepts(grammar, '[{"name": "get_weather", "arguments": {"city": "Rome"}}]')
    assert not demo.accepts(grammar, '[{"name": "now", "arguments": {}}, {"name": "now", "arguments": {}}]')


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"type": "array"}, "`look`"),
        ({"not": {}}, "Tool `look`: The keyword `not`"),
        ({"enum": []}, "nothing satisfies it"),
    ],
)
def test_a_tool_that_cannot_be_forced_is_refused(demo: Vocabulary, parameters: JSONObject, said: str) -> None:
    """Parameters that are not an object, or that cannot be enforced, are a client's error in `tools`."""
    with pytest.raises(InvalidRequest) as caught:
        demo.compiler().tool_call([Tool("look", parameters=parameters)], forced(), starts_in_reasoning=False)
    assert caught.value.param == "tools"
    assert said in caught.value.message


def test_a_call_of_a_tool_that_is_not_offered_is_refused(demo: Vocabulary) -> None:
    """`tool_choice` must name one of the tools."""
    with pytest.raises(InvalidRequest) as caught:
        demo.compiler().tool_call([NOW], forced(name="later"), starts_in_reasoning=False)
    assert caught.value.param == "tool_choice"


class SlowTokenizer:
    """A tokenizer without a Rust core, like those made from SentencePiece or tiktoken files."""

    def __init__(self, fast: PreTrainedTokenizerFast) -> None:
        self._fast = fast
        for name in ("convert_ids_to_tokens", "encode", "get_added_vocab", "get_vocab"):
            setattr(self, name, getattr(fast, name))
        self.all_special_ids = fast.all_special_ids
        self.eos_token_id = fast.eos_token_id
        self.bos_token_id = fast.bos_token_id

    def __len__(self) -> int:
        return len(self._fast)


def test_tokenizers_without_a_fast_core_work_too(letters: Vocabulary) -> None:
    """Their vocabulary is read token by token, and the same tokens are allowed."""
    slow = Vocabulary(SlowTokenizer(letters.tokenizer._tokenizer), letters.eos)
    grammar = slow.compiler(THINKING).json(ANY_OBJECT, starts_in_reasoning=True)
    assert slow.accepts(grammar, 'é</think>{"ü": "🐳"}')
    assert not slow.accepts(grammar, "hm</think>no")


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("vocab_size", [7, 64, 1000])
def test_the_mask_excludes_the_tokens_of_its_bits(dtype: mx.Dtype, vocab_size: int) -> None:
    """Allowed logits are unchanged, others become minus infinity, and the type is kept; numpy agrees."""
    random = np.random.default_rng(vocab_size)
    logits = mx.array(random.normal(size=(3, vocab_size))).astype(dtype)
    bits = random.integers(0, 2**32, size=(3, -(-vocab_size // 32)), dtype=np.uint32)
    masked = apply_bits(logits, bits)
    allowed = np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")[:, :vocab_size].astype(bool)
    before, after = np.array(logits.astype(mx.float32)), np.array(masked.astype(mx.float32))
    assert masked.dtype == dtype
    assert (after[allowed] == before[allowed]).all()
    assert np.isneginf(after[~allowed]).all()
