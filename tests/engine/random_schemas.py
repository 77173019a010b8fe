"""JSON schemas drawn at random: nested objects, arrays with bounds, choices, numbers, strings, references."""

from __future__ import annotations

from random import Random
from typing import Any

from periscope.core import JSONObject

_PATTERNS = ["^[a-z]{1,4}$", r"^\d{3}-\d{2}$", "[0-9]", "^(foo|bar)+$", r'^[^"\\]{2,5}$']
_FORMATS = ["date", "date-time", "uuid", "ipv4", "email", "time"]
_VALUES: list[Any] = ["a", 'b"c', "é🐳", 1, 2.5, None, True, {"k": [1]}, ""]
_PLAIN: list[Any] = [
    {"type": "null"},
    {"type": "string"},
    {"type": "number"},
    {"minLength": 3},
    {"minimum": 5},
    {},
    True,
]


class SchemaWriter:
    """Draws schemas from one random source."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def document(self) -> JSONObject:
        """An object schema with definitions that others refer to, one of them recursive."""
        tree = {
            "type": "object",
            "properties": {"value": self._scalar(), "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["value"],
            "additionalProperties": False,
        }
        return {**self._object(depth=3), "$defs": {"leaf": self._scalar(), "tree": tree}}

    def _schema(self, depth: int) -> Any:
        kind = self._random.randrange(10)
        if depth <= 0 or kind < 4:
            return self._scalar()
        if kind < 6:
            return self._object(depth - 1)
        if kind < 7:
            return self._array(depth - 1)
        if kind < 8:
            return {"anyOf": [self._schema(depth - 1), self._schema(depth - 1)]}
        if kind < 9:
            return {"$ref": self._random.choice(["#/$defs/leaf", "#/$defs/tree"])}
        return {"allOf": [self._open_object("a"), self._open_object("b")]}

    def _open_object(self, letter: str) -> JSONObject:
        names = [f"{letter}{number}" for number in range(self._random.randrange(3))]
        required = [name for name in names if self._random.random() < 0.6]
        return {"type": "object", "properties": {name: self._scalar() for name in names}, "required": required}

    def _object(self, depth: int) -> JSONObject:
        names = [f"p{number}" for number in range(self._random.randrange(4))]
        others: list[JSONObject] = [
            {"additionalProperties": False},
            {"additionalProperties": self._scalar()},
            {"patternProperties": {"^q[a-z]$": self._scalar()}, "additionalProperties": False},
            {},
        ]
        return {
            "type": "object",
            "properties": {name: self._schema(depth) for name in names},
            "required": [name for name in names if self._random.random() < 0.6],
            **self._random.choice(others),
        }

    def _array(self, depth: int) -> JSONObject:
        fewest = self._random.randrange(3)
        prefix = {"prefixItems": [self._scalar()]} if self._random.random() < 0.3 else {}
        bounds = {"minItems": fewest, "maxItems": fewest + self._random.randrange(3)}
        return {"type": "array", "items": self._schema(depth), **bounds, **prefix}

    def _scalar(self) -> Any:
        random = self._random
        low = random.randint(-1000, 1000)
        shortest = random.randrange(5)
        options: list[Any] = [
            {"enum": random.sample(_VALUES, random.randint(1, 4))},
            {"const": random.choice(["x", 3, None, False, "\n\t"])},
            {"type": "boolean"},
            {"type": "integer", "minimum": low, "maximum": low + random.randint(0, 3000)},
            {"type": "number", "minimum": low / 100, "exclusiveMaximum": low / 100 + random.choice([0.5, 10.25])},
            {"type": "integer", "multipleOf": random.choice([2, 3, 7, 10])},
            {"type": "string", "pattern": random.choice(_PATTERNS)},
            {"type": "string", "minLength": shortest, "maxLength": shortest + random.randrange(8)},
            {"type": "string", "format": random.choice(_FORMATS)},
            {"type": random.sample(["string", "integer", "null", "number", "boolean"], 2)},
            random.choice(_PLAIN),
        ]
        return random.choice(options)
