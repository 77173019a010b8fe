"""Checks that the keywords of a JSON schema hold values of the kind that each keyword takes. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from periscope.engine.structured.schema_bounds import whole

#: A check of a value, and the kind of value it wants, as the rest of a sentence about the keyword.
Shape: TypeAlias = "tuple[Callable[[Any], bool], str]"

_TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")


def _is_type(value: Any) -> bool:
    told = value if isinstance(value, list) else [value]
    return bool(told) and all(isinstance(each, str) and each in _TYPES for each in told)


def _are_strings(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and isinstance(whole(value), int) and value >= 0


_SHAPES: Mapping[str, Shape] = {
    "type": (_is_type, f"must be one of {', '.join(_TYPES)}, or a list of them"),
    "required": (_are_strings, "must be a list of strings"),
    "enum": (lambda value: isinstance(value, list), "must be a list"),
    **dict.fromkeys(
        ("anyOf", "oneOf", "allOf", "prefixItems"), (lambda value: isinstance(value, list), "must be a list of schemas")
    ),
    **dict.fromkeys(
        ("properties", "patternProperties", "$defs", "definitions"),
        (lambda value: isinstance(value, dict), "must be an object that holds schemas"),
    ),
    **dict.fromkeys(("pattern", "format"), (lambda value: isinstance(value, str), "must be a string")),
    **dict.fromkeys(
        ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), (_is_number, "must be a number")
    ),
    **dict.fromkeys(
        ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength"),
        (_is_count, "must be a whole number of at least 0"),
    ),
}


def misshapen(keyword: str, value: Any) -> str | None:
    """What the keyword must hold, as the rest of a sentence about it; None if it does.

    Null is as good as no keyword: clients write it for one that was never set.
    """
    if value is None or keyword not in _SHAPES:
        return None
    fits, wanted = _SHAPES[keyword]
    return None if fits(value) else f"{wanted}."
