"""An answer that fits a pydantic model: python examples/json_answer.py."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from periscope import OutputSpec, ResponseFormat
from periscope.sync import Periscope


class Mood(BaseModel):
    """What a text sounds like."""

    mood: Literal["happy", "sad"]
    certainty: Literal[1, 2, 3]


with Periscope() as periscope:
    output = OutputSpec(response_format=ResponseFormat(Mood.model_json_schema()))
    print(Mood.model_validate_json(periscope.chat("The sun is out!", output=output).text))
