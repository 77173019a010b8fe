"""Bounds in the form that the grammar compiler gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.engine.structured.schema_bounds import (
    MAX_BOUND,
    MAX_COUNT,
    bound_exactly,
    least_common_multiple,
    objection,
)


@pytest.mark.parametrize(
    ("schema", "bounded"),
    [
        ({"minimum": 3, "maximum": 2.5, "multipleOf": 0.1}, None),
        ({"minimum": -1e30, "exclusiveMaximum": float("inf")}, {}),
        ({"type": "integer", "minimum": 2**53 + 1}, {"type": "integer", "minimum": 2**53 + 2, "maximum": MAX_BOUND}),
        ({"type": "integer", "exclusiveMaximum": -(2**60)}, None),
        ({"minLength": 2.0, "maxItems": 2**70}, {"minLength": 2, "maxItems": MAX_COUNT}),
        ({"maxLength": 2.5, "minimum": "3", "maximum": True}, None),
    ],
)
def test_bounds_beyond_the_compiler_s_numbers_are_tightened(
    schema: dict[str, Any], bounded: dict[str, Any] | None
) -> None:
    """Ordinary bounds, and wrong ones that the compiler itself refuses, are unchanged."""
    given_bounds = dict(schema)
    bound_exactly(schema)
    assert schema.items() >= (given_bounds if bounded is None else bounded).items()
    assert bounded is None or schema == bounded


@settings(deadline=None)
@given(st.integers(-MAX_BOUND, MAX_BOUND), st.sampled_from(["integer", "number"]))
def test_a_bound_never_allows_a_value_beyond_it(bound: int, kind: str) -> None:
    """It moves inwards, by at most the distance of neighbouring floats."""
    schema: dict[str, Any] = {"type": kind, "minimum": bound, "maximum": bound}
    bound_exactly(schema)
    assert bound <= schema["minimum"] <= bound + 2048
    assert bound - 2048 <= schema["maximum"] <= bound
    assert (float(schema["minimum"]), float(schema["maximum"])) == (schema["minimum"], schema["maximum"])


@pytest.mark.parametrize(
    ("numbers", "multiple"),
    [((6, 4), 12), ((0.5, 0.75), 150), ((7, 0.1), 70), ((1e-9,), 1), ((100.0,), 100), ((1e-40, 1), MAX_BOUND)],
)
def test_multiples_are_counted_without_their_points(numbers: tuple[float, ...], multiple: int) -> None:
    """Several `multipleOf` count as their least common multiple, as in the compiler's automaton."""
    assert least_common_multiple(*numbers) == multiple


@pytest.mark.parametrize("value", [True, "5", None, float("nan"), [], 0, -1])
def test_values_that_are_no_bounds_are_left_to_the_compiler(value: object) -> None:
    """The compiler reports a value of the wrong type."""
    assert not any(objection(keyword, value) for keyword in ("minimum", "maximum", "minLength", "multipleOf"))
