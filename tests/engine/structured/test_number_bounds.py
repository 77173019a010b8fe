"""Numbers of a model that repeats itself end, and fit their schema."""

from __future__ import annotations

import json

import pytest
from jsonschema import Draft202012Validator
from mlx_lm.utils import load_tokenizer

from periscope.core import JSONObject, ResponseFormat
from periscope.demo import EMBEDDED_MODELS
from periscope.engine.structured.number_bounds import Room, room_for_digits
from tests.engine.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def demo() -> Vocabulary:
    tokenizer = load_tokenizer(EMBEDDED_MODELS["embedded:text"])
    return Vocabulary(tokenizer, frozenset(tokenizer.eos_token_ids))


@pytest.mark.parametrize(
    ("text", "room"),
    [
        (b'{"a": 123', Room(13)),
        (b"[-12.5", Room(16, is_fraction=True)),
        (b"[1.", Room(17, is_fraction=True)),
        (b"1e+12", Room(1)),
        (b'{"a": "123', None),
        (b"v123", None),
    ],
)
def test_the_room_is_that_of_the_number_a_text_ends_with(text: bytes, room: Room | None) -> None:
    """A number has room for 16 digits before the point, 17 after it and 3 in the exponent; a string has none."""
    assert room_for_digits(text, 16) == room


@pytest.mark.parametrize("digit", "0179")
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"type": "number"},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "number", "minimum": 10**17},
        {"type": "integer", "multipleOf": 7},
    ],
)
def test_a_number_of_repeated_digits_ends(demo: Vocabulary, schema: JSONObject, digit: str) -> None:
    """A model that repeats one digit wherever it can, then a point, ends the number, and the number fits."""
    document = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    matcher = demo.compiler().json(ResponseFormat(document), starts_in_reasoning=False).new_matcher()
    wished = [token for text in (digit, ".", "e") for token in demo.ids(text)]
    text = b""
    for _ in range(100):
        allowed = demo.allowed(matcher)
        if demo.eos & {*allowed}:
            break
        token = next((token for token in wished if token in allowed), allowed[0])
        text += demo.table.text(token).utf8
        matcher.consume(token)
    Draft202012Validator(document).validate(json.loads(text))
