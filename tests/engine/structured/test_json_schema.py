"""Which schemas are refused before anything is compiled."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.core import JSONObject
from periscope.engine.structured.json_schema import check_enforceable
from periscope.errors import InvalidRequest


def nested(depth: int) -> JSONObject:
    schema: JSONObject = {"type": "string"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def conjunction(*, num_patterns: int) -> list[JSONObject]:
    return [{"type": "string", "pattern": f"x{number}.*y"} for number in range(num_patterns)]


def doubling_references() -> JSONObject:
    below = {f"d{level}": {"allOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(30)}
    return {"$defs": {**below, "d30": {"type": "string"}}, "$ref": "#/$defs/d0"}


def references_in_a_row(num: int) -> JSONObject:
    """Each object has the next one in it."""
    below = {f"d{n}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(num)}
    return {"$defs": {**below, f"d{num}": {"type": "string"}}, "$ref": "#/$defs/d0"}


def references_beside_a_type(num: int) -> JSONObject:
    """All to one large schema."""
    large = {"type": "object", "properties": {str(n): {} for n in range(3000)}}
    return {"$defs": {"a": large}, "properties": {str(n): {"$ref": "#/$defs/a", "type": "object"} for n in range(num)}}


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"title": "t", "description": "d", "default": [{"not": 1}], "examples": [1], "$comment": "c", "x-order": 3},
        {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "$id": "urn:a",
            "deprecated": True,
            "readOnly": True,
        },
        {"const": {"not": 1}, "enum": [{"if": 2}]},
        {"type": "object", "properties": {"not": {"type": "string"}, "if": True}},
        {"type": "object", "required": ["a"], "minProperties": 2},
        {
            "$ref": "#/definitions/a",
            "description": "d",
            "definitions": {"a": {"type": "array", "items": {"$ref": "#"}}},
        },
        {"allOf": conjunction(num_patterns=5)},
        {"allOf": [{"properties": {f"p{n}": {"format": "date"} for n in range(40)}}, {"required": ["p1"]}]},
        nested(50),
        references_in_a_row(250),
        references_beside_a_type(20),
        {"required": None, "properties": None, "items": None, "enum": None, "type": None, "additionalProperties": None},
        {"type": "string", "nullable": True, "format": "colour"},
        {"type": "number", "minimum": -1e30, "maximum": 1e308, "multipleOf": 1e-9},
        {"type": "integer", "minimum": 2**62, "exclusiveMaximum": 10**5000, "multipleOf": 4096},
        {"maxLength": 2**70, "maxItems": 2**70, "maxProperties": 2**70},
        {"allOf": [{"multipleOf": 6}, {"multipleOf": 0.4}, {"properties": {"a": {"multipleOf": 4001}}}]},
    ],
)
def test_a_schema_that_can_be_enforced_passes(schema: JSONObject) -> None:
    """Annotations, values, property names and extensions do not count as keywords, and ordinary sizes are accepted."""
    check_enforceable(schema, "here")


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"properties": {"a": {"items": {"uniqueItems": True}}}}, "`uniqueItems` at `/properties/a/items`"),
        ({"anyOf": [{}, {"if": {}}]}, "`if` at `/anyOf/1`"),
        ({"$defs": {"a": {"uniqueItems": True}}}, "`uniqueItems` at `/$defs/a`"),
        ({"items": {"$ref": "#/nowhere/at/all"}}, "`$ref` at `/items` points to `#/nowhere/at/all`"),
        ({"items": [{"contains": {}}]}, "`contains` at `/items/0`"),
        ({"additionalProperties": {"propertyNames": {}}}, "`propertyNames`"),
        ({"x-guidance": {"lenient": True}}, "`x-guidance`"),
        ({"patternProperties": {"^a": 5}}, "`/patternProperties/^a` must be a schema"),
        ({"$ref": "https://example.com/schema"}, "`#/$defs/...`"),
        ({"$ref": 5}, "`$ref`"),
        ({"properties": {"a": {"$id": "b"}}}, "`$id`"),
        ({"minProperties": 2}, "`minProperties`"),
        ({"minProperties": 2.0}, "`minProperties`"),
        (
            {"items": {"minimum": 1e30}},
            "`minimum` at `/items` can be enforced up to 4611686018427387904 (2^62). Lower it",
        ),
        ({"exclusiveMinimum": 2**63}, "`exclusiveMinimum` can be enforced up to"),
        ({"minimum": 10**5000}, "`minimum` can be enforced up to"),
        ({"maximum": -(2**70)}, "`maximum` can be enforced down to -4611686018427387904 (-2^62). Raise it"),
        ({"exclusiveMaximum": float("-inf")}, "`exclusiveMaximum` can be enforced down to"),
        ({"minLength": 2**70}, "`minLength` can be enforced up to 2147483647. Lower it, or leave it out"),
        ({"minItems": 2**32}, "`minItems` can be enforced up to"),
        (
            {"multipleOf": 999_983},
            "`multipleOf` can be enforced up to 4096, counted without its point. Choose a smaller",
        ),
        ({"multipleOf": 99.99}, "`multipleOf`"),
        ({"multipleOf": 1e-40}, "`multipleOf`"),
        ({"multipleOf": 10**400}, "`multipleOf`"),
        ({"allOf": [{"multipleOf": 97}, {"multipleOf": 89}]}, "least common multiple of 4096"),
        (
            {
                "allOf": [
                    {"properties": {"a": {"multipleOf": 97}}},
                    {"additionalProperties": {"multipleOf": 0.89}},
                ]
            },
            "least common multiple of 4096",
        ),
        (nested(70), "60 deep"),
        ({"allOf": conjunction(num_patterns=30)}, "`pattern` and `format`"),
        ({"allOf": [{"properties": {"a": one}} for one in conjunction(num_patterns=30)]}, "`pattern` and `format`"),
        ({"allOf": [{"additionalProperties": one} for one in conjunction(num_patterns=30)]}, "`pattern` and `format`"),
        (doubling_references(), "More than 4000 schemas"),
        (references_in_a_row(10_000), "more than 600 levels together"),
        (references_beside_a_type(100), "Too many schemas refer to others beside keywords of their own"),
        ({"patternProperties": {f"^{n}x*$": {} for n in range(101)}}, "`patternProperties`"),
    ],
)
def test_other_schemas_are_refused_with_place_and_reason(schema: JSONObject, said: str) -> None:
    """An unknown keyword is never skipped, and a schema that takes too long to compile is never compiled."""
    with pytest.raises(InvalidRequest) as caught:
        check_enforceable(schema, "here")
    assert caught.value.param == "here"
    assert said in caught.value.message


@pytest.mark.parametrize(
    "reference",
    ["#/$defs/a~1b%20c", "#/$defs/a~1b c", "#/$defs/List<é.x>", "#/$defs/List%3C%C3%A9.x%3E", "#/allOf/0", "#"],
)
def test_references_are_followed_wherever_they_point(reference: str) -> None:
    """Escapes, percent-encoding, positions in lists and pointers to themselves are handled."""
    schema: dict[str, Any] = {"$defs": {"a/b c": {}, "List<é.x>": {}}, "allOf": [{}, {"$ref": reference}]}
    check_enforceable(schema, "here")
