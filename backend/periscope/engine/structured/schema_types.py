"""The types that a JSON schema is about: those it declares, and those that its keywords apply to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from periscope.core import JSONObject
from periscope.engine.structured.json_schema import MAX_SCHEMA_DEPTH, resolve

_BY_KEYWORDS = {
    "object": frozenset(
        {"properties", "required", "patternProperties", "additionalProperties", "minProperties", "maxProperties"}
    ),
    "array": frozenset({"items", "prefixItems", "additionalItems", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "minLength", "maxLength", "format"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}
NUMBER_KEYWORDS = _BY_KEYWORDS["number"]


@dataclass(frozen=True, slots=True)
class SchemaTypes:
    """Types of the values that one schema is about; `number` stands for integers, too.

    Attributes:
        spoken: types that keywords such as `minLength` apply to. Values of other types are valid under them.
        told: types that `type`, `enum` or `const` declare.
        is_told: whether any part of the schema declares its types.
    """

    spoken: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()
    is_told: bool = False

    @property
    def is_mixed(self) -> bool:
        """Whether keywords apply to several types, or to others than those declared."""
        return bool(self.spoken) and len(self.spoken | self.told) > 1

    @property
    def listed(self) -> list[str]:
        """The types in `spoken`, in a fixed order."""
        return [kind for kind in _BY_KEYWORDS if kind in self.spoken]


def types_by_keywords(schema: JSONObject) -> list[str]:
    """The types that the schema's own keywords apply to."""
    return [kind for kind, keywords in _BY_KEYWORDS.items() if any(schema.get(word) is not None for word in keywords)]


class TypesOf:
    """Owns the types of one document's definitions, each computed once."""

    def __init__(self, root: JSONObject) -> None:
        self._root = root
        self._definitions: dict[str, SchemaTypes] = {}

    def __call__(self, schema: Any, depth: int = 0) -> SchemaTypes:
        """The types of a schema and of all schemas that apply with it, following references."""
        if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
            return SchemaTypes()
        return _met([_own(schema), *self._beside(schema, depth + 1)])

    def _beside(self, schema: JSONObject, depth: int) -> Iterator[SchemaTypes]:
        if isinstance(reference := schema.get("$ref"), str):
            yield self._definition(reference, depth)
        yield from (self(branch, depth) for branch in _branches(schema, "allOf"))
        for keyword in ("anyOf", "oneOf"):
            if branches := [self(branch, depth) for branch in _branches(schema, keyword)]:
                yield _one_of(branches)

    def _definition(self, reference: str, depth: int) -> SchemaTypes:
        if reference not in self._definitions:
            self._definitions[reference] = SchemaTypes()  # a self-reference adds no types
            self._definitions[reference] = self(resolve(self._root, reference), depth)
        return self._definitions[reference]


def _own(schema: JSONObject) -> SchemaTypes:
    if (told := _told(schema)) is not None:
        return SchemaTypes(frozenset(types_by_keywords(schema)), frozenset(told), is_told=True)
    return SchemaTypes(frozenset(types_by_keywords(schema)))


def _told(schema: JSONObject) -> Iterable[str] | None:
    if isinstance(values := schema.get("enum"), list):
        return map(_kind_of, values)
    if "const" in schema:
        return [_kind_of(schema["const"])]
    told = schema.get("type")
    if told is None:
        return None
    return ("number" if kind == "integer" else str(kind) for kind in (told if isinstance(told, list) else [told]))


def _kind_of(value: object) -> str:
    match value:
        case bool():
            return "boolean"
        case int() | float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
        case _:
            return "null"


def _branches(schema: JSONObject, keyword: str) -> list[Any]:
    branches = schema.get(keyword)
    return branches if isinstance(branches, list) else []


def _met(parts: Iterable[SchemaTypes]) -> SchemaTypes:
    """The types of parts that all apply."""
    parts = list(parts)
    spoken = frozenset[str]().union(*(part.spoken for part in parts))
    told = frozenset[str]().union(*(part.told for part in parts))
    return SchemaTypes(spoken, told, any(part.is_told for part in parts))


def _one_of(branches: list[SchemaTypes]) -> SchemaTypes:
    """The types of alternatives. They declare types only if every branch does."""
    met = _met(branches)
    return SchemaTypes(met.spoken, met.told, all(branch.is_told for branch in branches))
