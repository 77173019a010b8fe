"""The nouns' own checks."""

from __future__ import annotations

import math
from typing import Any

import pytest

from periscope.core import GenerationParams, ImagePart, Message, Role, TextPart
from periscope.errors import InvalidRequest


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 1.01),
        ("top_k", -1),
        ("top_k", 10**30),
        ("max_tokens", 10**12),
        ("min_p", -0.5),
        ("max_tokens", 0),
        ("repetition_penalty", 0.0),
        ("frequency_penalty", 2.5),
        ("presence_penalty", -2.5),
        ("seed", 2**64),
        ("stop", ("",)),
        ("stop", ("x" * 2000,)),
        ("stop", tuple("abcdefghijklmnopq")),
    ],
)
def test_params_out_of_bounds_name_their_field(field: str, value: Any) -> None:
    """A value outside of its bounds is refused with the field's name, before any model sees it."""
    with pytest.raises(InvalidRequest) as caught:
        GenerationParams(**{field: value})
    assert caught.value.param == field
    assert field in caught.value.message


def test_params_not_asked_for_come_from_the_defaults() -> None:
    """A request's own value wins, even a falsy one; None takes the default."""
    defaults = GenerationParams(temperature=0.7, top_k=40, stop=("END",))
    merged = GenerationParams(temperature=0.0, max_tokens=5).over(defaults)
    assert merged == GenerationParams(temperature=0.0, top_k=40, max_tokens=5, stop=("END",))


def test_a_message_tells_its_text_and_its_images_apart() -> None:
    """Text parts are joined with newlines, image parts keep their order."""
    one, two = ImagePart("data:1", "a"), ImagePart("data:2", "b")
    message = Message(Role.USER, (TextPart("x"), one, TextPart("y"), two))
    assert message.text == "x\ny"
    assert message.images == (one, two)
