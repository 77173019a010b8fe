"""Clients' schemas are enforced as the clients mean them: open parts, and other dialects of JSON schema."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from mlx_lm.utils import load_tokenizer

from periscope.core import JSONObject, ResponseFormat
from periscope.demo import EMBEDDED_MODELS
from periscope.errors import InvalidRequest
from tests.engine.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def demo() -> Vocabulary:
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


def an(**properties: Any) -> JSONObject:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def to(name: str, schema: JSONObject, spelled: str | None = None) -> JSONObject:
    """A schema that refers to the definition with that name."""
    return {**an(a={"$ref": f"#/$defs/{spelled or name}"}), "$defs": {name: schema}}


SHORT = {"type": "string", "maxLength": 3}
TIME = an(a={"type": "string", "format": "date-time"})
ACCEPTED: list[tuple[str, JSONObject, list[Any], list[Any]]] = [
    ("nullable", an(a={"type": "integer", "nullable": True}), [{"a": None}, {"a": 1}], [{"a": "x"}]),
    ("not nullable", an(a={"type": "integer", "nullable": False}), [{"a": 1}], [{"a": None}]),
    ("nullable enum", an(a={"enum": ["x", "y"], "nullable": True}), [{"a": None}, {"a": "x"}], [{"a": "z"}]),
    ("unknown format", an(a={"type": "string", "format": "colour", "maxLength": 5}), [{"a": "red"}], [{"a": 1}]),
    ("name with <>", to("List<Item>", SHORT), [{"a": "x"}], [{"a": 1}]),
    ("name with a blank", to("my item", SHORT), [{"a": "x"}], [{"a": 1}]),
    ("name with a dot", to("my.item", SHORT), [{"a": "x"}], [{"a": 1}]),
    ("name in Greek", to("\u03b1\u03b2", SHORT), [{"a": "x"}], [{"a": 1}]),
    ("name in percents", to("my item", SHORT, "my%20item"), [{"a": "x"}], [{"a": 1}]),
    ("name with / and ~", to("a/b~c", SHORT, "a~1b~0c"), [{"a": "x"}], [{"a": 1}]),
    ("object without type", {"properties": {"a": {"type": "integer"}}, "required": ["a"]}, [{"a": 1}], [5, "x", []]),
    ("array without type", {"items": {"type": "integer"}, "maxItems": 2}, [[1], []], [5, {}]),
    ("string without type", {"maxLength": 3}, ["abc"], [5, "abcd"]),
    ("null keywords", {"type": "object", "properties": None, "required": None, "items": None, "enum": None}, [{}], [1]),
    ("null type", {"type": None, "properties": {"a": SHORT}, "additionalProperties": None}, [{"a": "x"}], [1]),
    ("nine digits", TIME, [{"a": "2026-01-02T03:04:05.123456789Z"}], [{"a": "2026-01-02T03:04:05.1234567891Z"}]),
    ("safe integers", an(a={"type": "integer"}), [{"a": 2**53 - 1}, {"a": 1 - 2**53}], [{"a": 2**53}, {"a": 10**16}]),
    ("own bounds", an(a={"type": "integer", "minimum": 2**60, "maximum": 2**61}), [{"a": 2**60}], [{"a": 5}]),
    ("own small bounds", an(a={"type": "integer", "maximum": 9}), [{"a": 9}, {"a": -4}], [{"a": 10}]),
    ("bounds beyond 64 bits", an(a={"type": "integer", "minimum": -1e30, "maximum": 2**70}),
     [{"a": 2**53 - 1}, {"a": -5}], [{"a": 2**53}]),
    ("bounds of all floats", an(a={"type": "number", "minimum": -1.7e308, "maximum": 1.7e308}),
     [{"a": 1.5}], [{"a": "x"}]),
    ("bounds between floats", an(a={"type": "integer", "minimum": 2**53 + 1, "maximum": 2**53 + 7}),
     [{"a": 2**53 + 2}, {"a": 2**53 + 6}], [{"a": 2**53}, {"a": 2**53 + 8}]),
    ("a bound far up", an(a={"type": "integer", "minimum": 2**62}), [{"a": 2**62}], [{"a": 2**62 - 1}, {"a": 5}]),
    ("a bound far down", an(a={"type": "integer", "maximum": -(2**60)}),
     [{"a": -(2**60)}], [{"a": -(2**60) + 1}, {"a": 5}]),
    ("counts as floats", an(a={"type": "string", "minLength": 2.0, "maxLength": 2**70}), [{"a": "abc"}], [{"a": "a"}]),
    ("items as floats", {"type": "array", "items": SHORT, "maxItems": 1.0}, [[], ["a"]], [["a", "b"]]),
    ("string or number", {"allOf": [{"minLength": 2}, {"minimum": 3}]}, ["ab", 3], ["a", 2, True, None, [], {}]),
    ("keywords beside allOf", {"minLength": 2, "allOf": [{"minimum": 3}]}, ["ab", 3], ["a", 2, True]),
    ("object or number", {"allOf": [{"required": ["a"], "properties": {"a": SHORT}}, {"maximum": 3}]},
     [{"a": "x"}, 3], [{}, {"a": 1}, 4, "x"]),
    ("array or string", {"allOf": [{"minItems": 1, "items": SHORT}, {"maxLength": 1}, {"maxItems": 1}]},
     [["x"], "x"], [[], ["x", "y"], "xy", 1]),
    ("type in a branch", {"allOf": [{"type": "integer"}, {"minLength": 2}]}, [5], ["ab", "a"]),
    ("two types in a branch", {"allOf": [{"type": ["string", "null"]}, {"minLength": 2}]}, ["ab", None], ["a", 5]),
    ("values in a branch", {"allOf": [{"enum": ["a", "ab", 5]}, {"minLength": 2}]}, ["ab", 5], ["a", "abc"]),
    ("choice in a branch", {"allOf": [{"anyOf": [{"minLength": 2}, {"minimum": 3}]}, {"maxLength": 3}]},
     ["ab", 3], ["abcd", True]),
    ("references that differ", {"allOf": [{"$ref": "#/$defs/s"}, {"$ref": "#/$defs/n"}],
                                "$defs": {"s": {"minLength": 2}, "n": {"minimum": 3}}}, ["ab", 3], ["a", 2, True]),
    ("beside a reference", {"$ref": "#/$defs/s", "minimum": 3, "$defs": {"s": {"minLength": 2}}}, ["ab", 3], ["a", 2]),
    ("a definition twice", {"type": "array", "items": {"anyOf": [{"allOf": [{"$ref": "#/$defs/s"}, {"minimum": 3}]}]},
                            "prefixItems": [{"$ref": "#/$defs/s"}], "maxItems": 2, "$defs": {"s": {"minLength": 2}}},
     [["ab", 3], ["ab", "ab"]], [[3], ["ab", 2]]),
    ("required in a branch", {"allOf": [an(a=SHORT) | {"required": []}, {"required": ["a"]}]}, [{"a": "x"}], [{}, 1]),
    ("one of two names", {**an(a=SHORT, b=SHORT), "required": [], "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
     [{"a": "x"}, {"b": "x"}], [{}, 1]),
]  # fmt: skip


@pytest.mark.parametrize(("schema", "right", "wrong"), [row[1:] for row in ACCEPTED], ids=[row[0] for row in ACCEPTED])
def test_a_schema_allows_what_its_client_means(
    demo: Vocabulary, schema: JSONObject, right: list[Any], wrong: list[Any]
) -> None:
    """Values that it allows can be written, and others cannot."""
    grammar = demo.compiler().json(ResponseFormat(schema), starts_in_reasoning=False)
    written = {json.dumps(value): demo.accepts(grammar, json.dumps(value)) for value in (*right, *wrong)}
    assert written == {json.dumps(value): value in right for value in (*right, *wrong)}


@pytest.mark.parametrize("schema", [{"enum": [10**20, "x"]}, {"const": 10**20}, {"type": "integer", "minimum": 10**20}])
def test_integers_beyond_64_bits_are_written_or_refused(demo: Vocabulary, schema: JSONObject) -> None:
    """The compiler has no such numbers; whatever the schema becomes, no answer is forced that does not fit."""
    grammar = None
    with suppress(InvalidRequest):  # refused, in words of our own
        grammar = demo.compiler().json(ResponseFormat(an(a=schema)), starts_in_reasoning=False)
    assert grammar is None or demo.accepts(grammar, json.dumps({"a": 10**20}))
