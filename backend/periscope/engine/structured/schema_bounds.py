"""Bounds in JSON schemas: checks that they can be enforced exactly, and adjusts them for the grammar compiler. Pure.

llguidance (1.x) reads bounds as 64-bit floats and integers as 64-bit integers. Beyond these it enforces other bounds
than the schema's, or fails in the middle of an answer. Bounds that this module accepts are enforced exactly.
"""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any, TypeGuard

from periscope.core import JSONObject

#: The greatest integer below which floats, which most JSON parsers use, represent all integers.
MAX_SAFE_INTEGER = 2**53 - 1
#: The greatest bound of a number for which the compiler's integers and floats agree.
MAX_BOUND = 2**62
#: The greatest count of characters, items or properties that the compiler's regexes support.
MAX_COUNT = 2**31 - 1
#: The greatest `multipleOf`, scaled to an integer. The automaton has a state for each remainder: with 9,999 the
#: compiler gives up in the middle of an answer, and 999,983 takes it a minute.
MAX_MULTIPLE = 4096

_LOWER = ("minimum", "exclusiveMinimum")
_UPPER = ("maximum", "exclusiveMaximum")
_LEAST = ("minLength", "minItems", "minProperties")
_MOST = ("maxLength", "maxItems", "maxProperties")
_OR_LEAVE = "or leave it out and check the answer yourself"


def objection(keyword: str, value: object) -> str | None:
    """Why this bound cannot be enforced, as the rest of a sentence about the keyword; None if it can."""
    if not _is_number(value):
        return None
    if keyword in _LOWER and value > MAX_BOUND:
        return f"can be enforced up to {MAX_BOUND} (2^62). Lower it, {_OR_LEAVE}."
    if keyword in _UPPER and value < -MAX_BOUND:
        return f"can be enforced down to {-MAX_BOUND} (-2^62). Raise it, {_OR_LEAVE}."
    if keyword in _LEAST and value > MAX_COUNT:
        return f"can be enforced up to {MAX_COUNT}. Lower it, {_OR_LEAVE}."
    if keyword == "multipleOf" and value > 0 and least_common_multiple(value) > MAX_MULTIPLE:
        return f"can be enforced up to {MAX_MULTIPLE}, counted without its point. Choose a smaller one, {_OR_LEAVE}."
    return None


def holds_anyway(keyword: str, value: object) -> bool:
    """Whether every number that can be generated satisfies the bound, because it is so wide."""
    if not _is_number(value):
        return False
    return (keyword in _LOWER and value < -MAX_BOUND) or (keyword in _UPPER and value > MAX_BOUND)


def least_common_multiple(*values: float) -> int:
    """Least common multiple of positive numbers, scaled to integers; `MAX_BOUND` if one has too many digits."""
    if not all(1 / MAX_BOUND < value < MAX_BOUND for value in values):
        return MAX_BOUND
    decimals = [Decimal(str(value)) for value in values]
    scale = max(0, *(-int(decimal.normalize().as_tuple().exponent) for decimal in decimals))
    return math.lcm(*(int(decimal.scaleb(scale)) for decimal in decimals))


def whole(value: Any) -> Any:
    """A whole number as an integer, however it is written: clients whose language has no integers write 5 as 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def bound_exactly(schema: JSONObject) -> None:
    """Adjust bounds in place so that the compiler enforces them exactly, or tighter by less than a float's precision.

    `objection` must have accepted them. Bounds that always hold are removed. A range beyond the integers that floats
    represent gets its missing end, without which the compiler rejects it.
    """
    is_integer = schema.get("type") == "integer"
    for keyword in (*_LOWER, *_UPPER):
        value = schema.get(keyword)
        if holds_anyway(keyword, value):
            del schema[keyword]
        elif _is_number(value) and abs(value) > MAX_SAFE_INTEGER:
            schema[keyword] = _inside(value, math.inf if keyword in _LOWER else -math.inf, is_integer=is_integer)
    _close_range(schema, _LOWER, _UPPER, 1)
    _close_range(schema, _UPPER, _LOWER, -1)
    for keyword in _LEAST + _MOST:
        if keyword in schema:
            schema[keyword] = value = whole(schema[keyword])
            if keyword in _MOST and _is_number(value) and value > MAX_COUNT:
                schema[keyword] = MAX_COUNT


def _close_range(schema: JSONObject, ends: tuple[str, str], other_ends: tuple[str, str], sign: int) -> None:
    is_far = any(_is_number(end := schema.get(keyword)) and end * sign > MAX_SAFE_INTEGER for keyword in ends)
    if is_far and not any(keyword in schema for keyword in other_ends):
        schema[other_ends[0]] = sign * MAX_BOUND


def _inside(bound: float, towards: float, *, is_integer: bool) -> float:
    """The nearest float within the bound. The compiler reads integers exactly and others by their decimal digits."""
    near = float(bound)
    while _is_outside(near, bound, towards, is_integer=is_integer):
        near = math.nextafter(near, towards)
    return int(near)


def _is_outside(near: float, bound: float, towards: float, *, is_integer: bool) -> bool:
    read = [int(near)] if is_integer else [int(near), int(Decimal(repr(near)))]
    return any(each < bound if towards > 0 else each > bound for each in read)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
