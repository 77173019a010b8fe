"""Removes nulls from JSON schemas: Go and C# write `null` for a keyword that was never set. Pure."""

from __future__ import annotations

from typing import Any

from periscope.core import JSONObject

#: Keywords whose value may be null itself.
_NULLABLE = frozenset({"default", "const", "example"})
#: Keywords that hold values, which are not searched for schemas.
_VALUES = _NULLABLE | {"examples", "enum"}
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def without_nulls(schema: JSONObject) -> JSONObject:
    """The same schema without keywords that are null; `properties: null` becomes an empty object.

    Chat templates walk over `properties` and `required`, and grammars read them, so neither may meet a null there.
    """
    return {keyword: _below(keyword, value) for keyword, value in schema.items() if _is_set(keyword, value)}


def _is_set(keyword: str, value: Any) -> bool:
    return value is not None or keyword in _NULLABLE or keyword == "properties"


def _below(keyword: str, value: Any) -> Any:
    if keyword in _VALUES:
        return value
    if keyword in _NAMED_SCHEMAS:
        if not isinstance(value, dict):
            return {} if value is None else value
        return {name: {} if named is None else _schema(named) for name, named in value.items()}
    return [_schema(each) for each in value] if isinstance(value, list) else _schema(value)


def _schema(value: Any) -> Any:
    return without_nulls(value) if isinstance(value, dict) else value
