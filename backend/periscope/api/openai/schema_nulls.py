"""JSON schemas as Go and C# write them: a keyword that was never set is `null` there, and means nothing. Pure."""

from __future__ import annotations

from typing import Any

from periscope.core import JSONObject

#: Keywords whose value may be null itself.
_NULLABLE = frozenset({"default", "const", "example"})
#: Keywords that hold values, in which no schema is looked for.
_VALUES = _NULLABLE | {"examples", "enum"}
_NAMED_SCHEMAS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})


def without_nulls(schema: JSONObject) -> JSONObject:
    """The same schema without the keywords that are null; `properties` that are null become none at all.

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
