"""Rewrites a client's JSON schema for the grammar compiler. Pure.

It makes explicit what clients leave open, expresses unsupported keywords by supported ones, and bounds numbers.

Validators accept any number, string or array if a schema has keywords for objects only, but clients that write such a
schema mean objects. So a schema without `type` gets the types that its keywords apply to. If the branches of an `allOf`
apply to several types, each constrains values of its own type only, as in a validator. Validators also accept further
properties if `additionalProperties` is missing, and a small model that may add properties adds them without end. So an
object that names properties may have only those, as in OpenAI's strict mode, vLLM and llama.cpp, unless the schema says
`additionalProperties: true`. All output is valid under the schema that the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from periscope.core import JSONObject
from periscope.engine.structured.json_schema import ANNOTATIONS, DEFINITIONS, children_of, intersects, resolve
from periscope.engine.structured.schema_bounds import MAX_SAFE_INTEGER, bound_exactly, holds_anyway
from periscope.engine.structured.schema_types import NUMBER_KEYWORDS, TypesOf, types_by_keywords

#: Digits of a fraction of a second, and of each part of a duration: nanoseconds, and thirty years of seconds.
_MAX_TIME_DIGITS = 9

_DATE = (
    r"[0-9]{4}-((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-9]))"
)
_TIME = (
    rf"([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{{1,{_MAX_TIME_DIGITS}}})?"
    r"([zZ]|[+-]([01][0-9]|2[0-3]):[0-5][0-9])"
)
_N = rf"[0-9]{{1,{_MAX_TIME_DIGITS}}}"
_TIME_PART = rf"T({_N}H({_N}M({_N}S)?)?|{_N}M({_N}S)?|{_N}S)"
#: Formats for which the compiler would allow endless digits. Source: RFC 3339.
_BOUNDED_FORMATS = {
    "date-time": rf"^{_DATE}[tT]{_TIME}$",
    "time": rf"^{_TIME}$",
    "duration": rf"^P(({_N}Y({_N}M({_N}D)?)?|{_N}M({_N}D)?|{_N}D)({_TIME_PART})?|{_TIME_PART}|{_N}W)$",
}
#: Formats that the compiler enforces. Any other is an annotation, as JSON Schema specifies.
_KNOWN_FORMATS = frozenset({"date", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"})

#: The longest strings of a format. Source: RFC 5321 and RFC 1035.
_MAX_LENGTHS = {"email": 254, "hostname": 253}

_DRAFT = re.compile(r"https?://json-schema\.org/(draft-0[4-7]|draft/20(19-09|20-12))/schema#?$")
_CHOICES = ("anyOf", "oneOf", "allOf")
_SAYS_TYPE = frozenset({"type", "enum", "const", "$ref"})
_NUMBERS = frozenset({"const", "enum", *NUMBER_KEYWORDS})


def rewritten(root: JSONObject) -> JSONObject:
    """The schema for the compiler. `check_enforceable` must have accepted `root`."""
    return SchemaRewriter(root).rewritten(root)


def max_number_digits(schema: JSONObject) -> int:
    """The most digits before the point of a number: those of `MAX_SAFE_INTEGER`, or of a greater one in the schema."""
    return max(len(str(MAX_SAFE_INTEGER)), *map(_num_digits, _numbers_in(schema)), 0)


class SchemaRewriter:
    """Owns what holds for all of one schema, and the definitions that one rewrite of it needs.

    Args:
        root: the whole schema, which `check_enforceable` must have accepted.
    """

    def __init__(self, root: JSONObject) -> None:
        self._root = root
        self._are_numbers_small = max_number_digits(root) <= len(str(MAX_SAFE_INTEGER))
        self._closes_objects = not _has_intersections(root)
        self._types_of = TypesOf(root)
        self._names: dict[tuple[str, bool], str] = {}  # of the definitions, by the references to them, and `is_mixed`
        self._pending: list[tuple[str, bool]] = []

    def rewritten(self, node: JSONObject) -> JSONObject:
        """The whole schema, or one inside of it, for the compiler."""
        self._names.clear()
        schema = self._schema(node, is_typed=False)
        if _DRAFT.match(str(self._root.get("$schema", ""))):  # it determines the meaning of some keywords
            schema["$schema"] = self._root["$schema"]
        definitions: JSONObject = {}
        while self._pending:
            reference, is_mixed = self._pending.pop()
            below = resolve(self._root, reference)
            definitions[self._names[reference, is_mixed]] = self._schema(below, is_typed=is_mixed, is_mixed=is_mixed)
        if definitions:
            schema["$defs"] = definitions
        return schema

    def _schema(self, node: Any, *, is_typed: bool, is_mixed: bool = False) -> Any:
        """Rewrite one schema and its subschemas.

        Args:
            is_typed: it is part of a schema that already states the type of the value.
            is_mixed: it applies together with schemas of other types, so definitions that it refers to get no type.
        """
        if not isinstance(node, dict):
            return node
        schema = {keyword: _copied(value) for keyword, value in node.items() if _is_enforced(keyword, value)}
        is_nullable = schema.pop("nullable", False) is True
        is_mixed = is_mixed or self._is_mixed(schema)
        self._add_type(schema, is_typed=is_typed, is_mixed=is_mixed)
        if self._closes_objects:
            _close(schema)
        is_typed = is_typed or is_mixed or bool(_SAYS_TYPE & schema.keys())
        for keyword, name, below in children_of(schema):
            is_beside = keyword in _CHOICES
            inside = self._schema(below, is_typed=is_typed and is_beside, is_mixed=is_mixed and is_beside)
            _put(schema, keyword, name, inside)
        if "$ref" in schema:
            schema["$ref"] = self._reference(schema["$ref"], is_mixed=is_mixed)
        bound_exactly(schema)
        self._bound_numbers(schema)
        _bound_format(schema)
        return {"anyOf": [schema, {"type": "null"}]} if is_nullable else schema

    def _is_mixed(self, schema: JSONObject) -> bool:
        """Whether schemas for different types apply to the same value here."""
        return ("allOf" in schema or ("$ref" in schema and len(schema) > 1)) and self._types_of(schema).is_mixed

    def _add_type(self, schema: JSONObject, *, is_typed: bool, is_mixed: bool) -> None:
        if is_typed or ((_SAYS_TYPE - {"$ref"}) & schema.keys()):
            return
        if is_mixed:
            types = self._types_of(schema)
            spoken = [] if types.is_told else types.listed
        else:
            spoken = [] if "$ref" in schema else types_by_keywords(schema)
        if spoken:
            schema["type"] = spoken[0] if len(spoken) == 1 else spoken

    def _reference(self, reference: str, *, is_mixed: bool) -> str:
        """The same under a name that needs no escapes, which the compiler would not take."""
        key = (reference, is_mixed)
        if key not in self._names:
            self._names[key] = f"d{len(self._names)}"
            self._pending.append(key)
        return f"#/$defs/{self._names[key]}"

    def _bound_numbers(self, schema: JSONObject) -> None:
        told = schema.get("type")
        types = {told} if isinstance(told, str) else {*told} if isinstance(told, list) else set()
        is_bounded = ("integer" in types and "number" not in types) or (
            bool(types & {"integer", "number"}) and "multipleOf" in schema
        )
        if not is_bounded or not self._are_numbers_small or {"enum", "const"} & schema.keys():
            return
        if not {"minimum", "exclusiveMinimum"} & schema.keys():
            schema["minimum"] = -MAX_SAFE_INTEGER
        if not {"maximum", "exclusiveMaximum"} & schema.keys():
            schema["maximum"] = MAX_SAFE_INTEGER


def _is_enforced(keyword: str, value: Any) -> bool:
    """Clients write null for a keyword that they leave out; `const` alone means it."""
    is_told = value is not None or keyword == "const"
    return is_told and keyword not in ANNOTATIONS | DEFINITIONS and not keyword.startswith("x-")


def _copied(value: Any) -> Any:
    """A list or an object of its own, whose entries `_put` may replace."""
    return value.copy() if isinstance(value, (dict, list)) else value


def _put(schema: JSONObject, keyword: str, name: str | None, inside: Any) -> None:
    if name is None:
        schema[keyword] = inside
    elif isinstance(schema[keyword], list):
        schema[keyword][int(name)] = inside
    else:
        schema[keyword][name] = inside


def _has_intersections(root: JSONObject) -> bool:
    """Whether several schemas hold of one value anywhere: each may then name properties that the others do not."""
    pending: list[Any] = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if intersects(value):
                return True
            pending += value.values()
        elif isinstance(value, list):
            pending += value
    return False


def _close(schema: JSONObject) -> None:
    """No properties beyond those it names, unless it speaks of others."""
    names, required = schema.get("properties"), schema.get("required", ())
    if not isinstance(names, dict) or not names or {"additionalProperties", "patternProperties"} & schema.keys():
        return
    if set(required) <= names.keys() and schema.get("minProperties", 0) <= len(names):
        schema["additionalProperties"] = False


def _bound_format(schema: JSONObject) -> None:
    told = schema.get("format")
    if not isinstance(told, str):
        return
    if told in _MAX_LENGTHS:
        schema.setdefault("maxLength", _MAX_LENGTHS[told])
    if told in _KNOWN_FORMATS:
        return
    del schema["format"]
    pattern = _BOUNDED_FORMATS.get(told)
    if pattern is not None and "pattern" in schema:
        schema["allOf"] = [*schema.get("allOf", ()), {"type": "string", "pattern": pattern}]
    elif pattern is not None:
        schema["pattern"] = pattern


def _numbers_in(schema: JSONObject) -> Iterator[int | float]:
    """The numbers that constrain values, anywhere in a schema."""
    pending: list[tuple[Any, bool]] = [(schema, False)]
    while pending:
        value, is_constraint = pending.pop()
        if isinstance(value, dict):
            told = [(key, inner) for key, inner in value.items() if not holds_anyway(key, inner)]
            pending += [(inner, is_constraint or key in _NUMBERS) for key, inner in told]
        elif isinstance(value, list):
            pending += [(inner, is_constraint) for inner in value]
        elif is_constraint and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield value


def _num_digits(number: float) -> int:
    """Digits before the point, one more at most; those of an infinity are not asked for."""
    if abs(number) <= MAX_SAFE_INTEGER:
        return len(str(MAX_SAFE_INTEGER))
    whole = int(number) if abs(number) < float("inf") else 0
    return whole.bit_length() * 30103 // 100000 + 1
