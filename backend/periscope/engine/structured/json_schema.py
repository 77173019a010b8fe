"""Checks whether a JSON schema can be enforced by a grammar. Pure; knows nothing of grammars' syntax or of tokens.

llguidance refuses keywords it knows and cannot enforce, but skips those it does not know, and takes time exponential in
some intersections. What this module lets through is enforced as written and compiles in bounded time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import unquote

from periscope.core import JSONObject
from periscope.engine.structured.schema_bounds import MAX_MULTIPLE, least_common_multiple, objection, whole
from periscope.engine.structured.schema_shapes import misshapen
from periscope.errors import InvalidRequest

#: Nesting depth of schemas. The compiler's stack ends at 128 levels of JSON, two per schema.
MAX_SCHEMA_DEPTH = 60
#: Levels of the schema and of all that it refers to, together. llguidance 1.9 follows references by recursion: 1,400
#: levels overflow a stack of 8 MiB and end the process.
MAX_FOLLOWED_LEVELS = 600
#: Schemas met below an intersection once its references are followed. The compiler's work doubles with each level of
#: an `allOf` of references: past this it takes seconds.
MAX_INTERSECTED_SCHEMAS = 4000
#: The same of all intersections of one schema together: a fifth of a second.
MAX_VISITED_SCHEMAS = 100_000
#: Names in all `patternProperties`: the compiler compares all those of an object, in a time that grows with their cube.
MAX_PATTERN_PROPERTIES = 100
#: Strings' patterns and formats that may have to hold of one string at once: the compiler's work doubles with each.
MAX_INTERSECTED_PATTERNS = 10

_ONE_SCHEMA = frozenset({"items", "additionalItems", "additionalProperties"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "oneOf", "allOf", "prefixItems"})
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties"})
DEFINITIONS = frozenset({"$defs", "definitions"})
# fmt: off
_VALUES = frozenset({
    "$ref", "const", "enum", "type", "required", "minItems", "maxItems", "minProperties", "maxProperties",
    "minLength", "maxLength", "pattern", "format", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    "multipleOf", "nullable",
})
#: Keywords that describe a value without constraining it.
ANNOTATIONS = frozenset({
    "$schema", "$id", "id", "$comment", "title", "description", "default", "examples", "example",
    "deprecated", "readOnly", "writeOnly", "discriminator", "contentMediaType", "contentEncoding", "externalDocs",
    "xml",
})
# fmt: on
_MAX_SHOWN = 100
#: The keyword from which the compiler reads its own settings.
_COMPILER_SETTINGS = "x-guidance"


def check_enforceable(schema: JSONObject, param: str) -> None:
    """Refuse a schema that could not be enforced or would take too long to compile.

    Args:
        param: where the schema stands in the request.

    Raises:
        InvalidRequest: names the keyword, its place in the schema and the way out.
    """
    _Check(schema, param).run()


class _Check:
    """Owns the walk over one schema, keyword by keyword."""

    def __init__(self, root: JSONObject, param: str) -> None:
        self._root = root
        self._param = param
        self._references: set[str] = set()
        self._num_pattern_properties = 0
        self._num_visited = 0

    def run(self) -> None:
        self._check_each()
        self._check_levels()

    def _check_each(self) -> None:
        pending: list[tuple[Any, str, int]] = [(self._root, "", 0)]
        while pending:
            schema, path, depth = pending.pop()
            if isinstance(schema, bool):
                continue
            if not isinstance(schema, dict):
                raise self._refusal(f"`{path}` must be a schema, that is an object or a boolean.")
            if depth > MAX_SCHEMA_DEPTH:
                raise self._refusal(f"The schema is nested more than {MAX_SCHEMA_DEPTH} deep. Make it flatter.")
            self._check_keywords(schema, path)
            if intersects(schema):
                self._num_visited += _Intersection(self._root, self._param).measure(schema)
                if self._num_visited > MAX_VISITED_SCHEMAS:
                    raise self._refusal(
                        "Too many schemas refer to others beside keywords of their own. Leave `allOf`, and what stands "
                        "beside `$ref`, `anyOf` or `oneOf`, out where it can be."
                    )
            pending += [(below, f"{path}{place}", depth + 1) for place, below in _below(schema)]

    def _check_levels(self) -> None:
        """Check the depth to which the compiler may follow references, in whatever order it does."""
        targets = {id(target): target for target in map(partial(resolve, self._root), self._references)}
        levels = 0
        for followed in (self._root, *targets.values()):
            levels += _num_levels(followed)
            if levels > MAX_FOLLOWED_LEVELS:
                raise self._refusal(
                    f"The schema and the definitions that it refers to have more than {MAX_FOLLOWED_LEVELS} levels "
                    "together. Use fewer definitions, or flatter ones."
                )

    def _check_keywords(self, schema: JSONObject, path: str) -> None:
        for keyword in schema:
            if not _is_known(keyword):
                raise self._refusal(
                    f"The keyword `{keyword}`{_at(path)} cannot be enforced while the model writes. "
                    "Say it with other keywords or leave it out, and check the answer yourself."
                )
        reference = schema.get("$ref")
        if reference is not None:
            self._check_reference(reference, path)
        if path and schema.get("$id") is not None:
            raise self._refusal(f"Only the root of a schema may have an `$id`, and there is one{_at(path)}.")
        for keyword, value in schema.items():
            if (why := misshapen(keyword, value) or objection(keyword, value)) is not None:
                raise self._refusal(f"`{keyword}`{_at(path)} {why}")
        self._num_pattern_properties += len(schema.get("patternProperties") or ())
        if self._num_pattern_properties > MAX_PATTERN_PROPERTIES:
            raise self._refusal(
                f"At most {MAX_PATTERN_PROPERTIES} names in `patternProperties` can be enforced. Join their patterns."
            )
        num_required = len(schema.get("required") or ())
        if whole(schema.get("minProperties") or 0) > num_required + 1:
            raise self._refusal(
                f"`minProperties`{_at(path)} can be enforced up to one more than the names in `required`: the names of "
                "further properties might repeat. Name the properties that must be there."
            )

    def _check_reference(self, reference: object, path: str) -> None:
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self._refusal(f"`$ref`{_at(path)} must point into this schema (`#/$defs/...`).")
        if not isinstance(resolve(self._root, reference), (dict, bool)):
            raise self._refusal(f"`$ref`{_at(path)} points to `{clipped(reference)}`, which is not in this schema.")
        self._references.add(reference)

    def _refusal(self, message: str) -> InvalidRequest:
        return InvalidRequest(message, param=self._param)


class _Intersection:
    """Owns the counts of what applies to one value at once below a schema, following references."""

    def __init__(self, root: JSONObject, param: str) -> None:
        self._root = root
        self._param = param
        self._num_schemas = 0
        self._num_patterns: Counter[str] = Counter()  # by the path of the value they hold of; "*" = of any name
        self._multiples: dict[str, list[float]] = {}  # likewise

    def measure(self, schema: JSONObject) -> int:
        """How many schemas were visited."""
        self._visit(schema, "", ())
        self._measure_patterns()
        self._measure_multiples()
        return self._num_schemas

    def _measure_patterns(self) -> None:
        anywhere = sum(count for path, count in self._num_patterns.items() if "*" in path)
        named = max((count for path, count in self._num_patterns.items() if "*" not in path), default=0)
        if anywhere + named > MAX_INTERSECTED_PATTERNS:
            raise InvalidRequest(
                f"More than {MAX_INTERSECTED_PATTERNS} of `pattern` and `format` would have to hold of one string "
                "(below `allOf`, or beside `$ref`, `anyOf` or `oneOf`). Join them into fewer.",
                param=self._param,
            )

    def _measure_multiples(self) -> None:
        """Check several `multipleOf` by their least common multiple, which determines the size of the automaton."""
        anywhere = [each for path, multiples in self._multiples.items() if "*" in path for each in multiples]
        for path, multiples in self._multiples.items():
            met = anywhere if "*" in path else [*anywhere, *multiples]
            if least_common_multiple(*met) > MAX_MULTIPLE:
                raise InvalidRequest(
                    f"Several `multipleOf` that would have to hold of one number (below `allOf`, or beside `$ref`, "
                    f"`anyOf` or `oneOf`) can be enforced up to a least common multiple of {MAX_MULTIPLE}. Choose "
                    "smaller ones, or leave them out and check the answer yourself.",
                    param=self._param,
                )

    def _visit(self, schema: Any, path: str, open_refs: tuple[str, ...]) -> None:
        if not isinstance(schema, dict):
            return
        self._num_schemas += 1
        if self._num_schemas > MAX_INTERSECTED_SCHEMAS or len(open_refs) > MAX_SCHEMA_DEPTH:
            raise InvalidRequest(
                f"More than {MAX_INTERSECTED_SCHEMAS} schemas, or {MAX_SCHEMA_DEPTH} references in a row, have to hold "
                "at once (below `allOf`, or beside `$ref`, `anyOf` or `oneOf`). Make the schema smaller.",
                param=self._param,
            )
        self._num_patterns[path] += ("pattern" in schema) + ("format" in schema)
        multiple = schema.get("multipleOf")
        if isinstance(multiple, (int, float)) and multiple > 0:
            self._multiples.setdefault(path, []).append(multiple)
        reference = schema.get("$ref")
        if isinstance(reference, str) and reference not in open_refs:
            self._visit(resolve(self._root, reference), path, (*open_refs, reference))
        for keyword, name, below in children_of(schema):
            if keyword not in DEFINITIONS:
                inside = path if keyword in ("anyOf", "oneOf", "allOf") else f"{path}/{_value_name(keyword, name)}"
                self._visit(below, inside, open_refs)


def _num_levels(schema: Any) -> int:
    """Schemas on the longest way down, without following references."""
    deepest, pending = 0, [(schema, 1)]
    while pending:
        node, depth = pending.pop()
        deepest = max(deepest, depth)
        if isinstance(node, dict):
            pending += [(below, depth + 1) for keyword, _, below in children_of(node) if keyword not in DEFINITIONS]
    return deepest


def _value_name(keyword: str, name: str | None) -> str:
    return name.replace("*", "") if name is not None and keyword == "properties" else "*"


def intersects(schema: JSONObject) -> bool:
    """Whether several schemas or keywords constrain the same value."""
    meeting = [keyword for keyword in schema if keyword not in ANNOTATIONS | DEFINITIONS]
    branches = schema.get("allOf")
    if isinstance(branches, list) and len(branches) > 1:
        return True
    return len(meeting) > 1 and any(keyword in ("$ref", "anyOf", "oneOf", "allOf") for keyword in meeting)


def children_of(schema: JSONObject) -> Iterator[tuple[str, str | None, Any]]:
    """(keyword, name or number, schema) of the schemas directly inside one. Null is as good as no keyword.

    The name is None where the keyword holds one schema; a property may have the empty name.
    """
    for keyword, value in list(schema.items()):
        if value is None:
            continue
        if keyword in _ONE_SCHEMA and not isinstance(value, list):
            yield keyword, None, value
        elif (keyword in _LISTS_OF_SCHEMAS or keyword in _ONE_SCHEMA) and isinstance(value, list):
            yield from ((keyword, str(number), below) for number, below in enumerate(value))
        elif keyword in _NAMED_SCHEMAS | DEFINITIONS and isinstance(value, dict):
            yield from ((keyword, name, below) for name, below in value.items())


def _below(schema: JSONObject) -> Iterator[tuple[str, Any]]:
    for keyword, name, below in children_of(schema):
        yield place_of(keyword, name), below


def place_of(keyword: str, name: str | None) -> str:
    """Pure: the step to a schema inside another one, for errors."""
    return f"/{keyword}" if name is None else f"/{keyword}/{clipped(name)}"


def resolve(root: JSONObject, reference: str) -> Any:
    """What a JSON pointer into this document names, written with percent signs or without; None if it is not there."""
    found: Any = root
    for part in reference.removeprefix("#").split("/")[1:]:
        names = [name.replace("~1", "/").replace("~0", "~") for name in (unquote(part), part)]
        if isinstance(found, list):
            at = int(names[0]) if names[0].isdecimal() else len(found)
            found = found[at] if at < len(found) else None
        elif isinstance(found, dict):
            found = next((found[name] for name in names if name in found), None)
        else:
            return None
    return found


def clipped(text: str) -> str:
    """As much of what a client wrote as an error needs."""
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."


def _is_known(keyword: str) -> bool:
    if keyword.startswith("x-"):
        return keyword != _COMPILER_SETTINGS
    return any(keyword in group for group in (_ONE_SCHEMA, _LISTS_OF_SCHEMAS, _NAMED_SCHEMAS, DEFINITIONS)) or (
        keyword in _VALUES or keyword in ANNOTATIONS
    )


def _at(path: str) -> str:
    return f" at `{path}`" if path else ""
