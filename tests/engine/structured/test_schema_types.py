"""SchemaTypes: the types that a schema declares or that its keywords apply to."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.core import JSONObject
from periscope.engine.structured.schema_types import SchemaTypes, TypesOf

KINDS = ("number", "boolean", "string", "array", "object", "null")


def spoken(*types: str) -> SchemaTypes:
    return SchemaTypes(spoken=frozenset(types))


def told(*types: str, beside: str | None = None) -> SchemaTypes:
    return SchemaTypes(frozenset([beside] if beside else []), frozenset(types), is_told=True)


@pytest.mark.parametrize(
    ("schema", "types", "is_mixed"),
    [
        ({}, spoken(), False),
        ({"minLength": 2, "format": "date"}, spoken("string"), False),
        ({"minLength": 2, "minimum": 3, "required": None}, spoken("string", "number"), True),
        ({"type": "integer", "minimum": 3}, told("number", beside="number"), False),
        ({"type": ["string", "null"], "minLength": 2}, told("string", "null", beside="string"), True),
        ({"enum": [1, 2.5, True, "a", [], {}, None]}, told(*KINDS), False),
        ({"const": None, "minimum": 3}, told("null", beside="number"), True),
        ({"allOf": [{"minLength": 2}, {"allOf": [{"maxItems": 3}]}]}, spoken("string", "array"), True),
        ({"anyOf": [{"type": "string"}, {"const": 5}]}, told("string", "number"), False),
        (
            {"oneOf": [{"type": "null"}, {"minLength": 2}]},
            SchemaTypes(frozenset({"string"}), frozenset({"null"})),
            True,
        ),
        ({"$ref": "#/$defs/a", "minimum": 3}, told("string", beside="number"), True),
        ({"$ref": "#/$defs/loop"}, spoken("object"), False),
        ({"$ref": "#/nowhere"}, spoken(), False),
    ],
)
def test_types_are_declared_or_implied(schema: JSONObject, types: SchemaTypes, is_mixed: bool) -> None:
    """Types come from a schema's own keywords, its branches and its references."""
    definitions: dict[str, Any] = {
        "a": {"type": "string"},
        "loop": {"required": ["x"], "allOf": [{"$ref": "#/$defs/loop"}]},
    }
    found = TypesOf({"$defs": definitions})(schema)
    assert found == types
    assert found.is_mixed is is_mixed


def test_definitions_that_double_take_no_time() -> None:
    """Each definition is visited once."""
    below = {f"d{level}": {"anyOf": [{"$ref": f"#/$defs/d{level + 1}"}] * 2} for level in range(25)}
    assert TypesOf({"$defs": {**below, "d25": {"minLength": 1}}})({"$ref": "#/$defs/d0"}) == spoken("string")
