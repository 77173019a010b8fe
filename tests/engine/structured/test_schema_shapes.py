"""Keywords of schemas that hold the wrong kind of value are refused by name, before anything reads them."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.engine.structured.json_schema import check_enforceable
from periscope.errors import InvalidRequest


@pytest.mark.parametrize(
    ("keyword", "value", "wanted"),
    [
        ("type", [[]], "one of array, boolean, integer, null, number, object, string, or a list of them"),
        ("type", "strin", "one of array, boolean"),
        ("type", [], "one of array, boolean"),
        ("type", {}, "one of array, boolean"),
        ("required", "a", "a list of strings"),
        ("required", [["a"]], "a list of strings"),
        ("enum", "a", "a list"),
        ("anyOf", {}, "a list of schemas"),
        ("properties", [], "an object that holds schemas"),
        ("pattern", 5, "a string"),
        ("format", [], "a string"),
        ("exclusiveMinimum", True, "a number"),
        ("multipleOf", "2", "a number"),
        ("minProperties", "1", "a whole number of at least 0"),
        ("maxItems", -1, "a whole number of at least 0"),
        ("minLength", 0.5, "a whole number of at least 0"),
        ("maxLength", float("nan"), "a whole number of at least 0"),
    ],
)
def test_a_keyword_with_another_kind_of_value_is_refused(keyword: str, value: Any, wanted: str) -> None:
    """The error names the keyword, its place and what it must hold."""
    with pytest.raises(InvalidRequest) as caught:
        check_enforceable({"properties": {"a": {keyword: value}}}, "here")
    assert caught.value.message.startswith(f"`{keyword}` at `/properties/a` must be {wanted}")


@pytest.mark.parametrize("keyword", ["type", "required", "enum", "anyOf", "properties", "minimum", "minProperties"])
def test_null_is_as_good_as_no_keyword(keyword: str) -> None:
    """Go and C# write it for one that was never set."""
    check_enforceable({"properties": {"a": {keyword: None}}}, "here")
