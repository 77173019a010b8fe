"""Errors of the Responses API: OpenAI's error objects, with the names that fields have here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from periscope.api.errors import ROWS, UnsupportedParameter
from periscope.api.openai.errors import encode_error as encode_openai_error

if TYPE_CHECKING:
    from periscope.api.errors import ErrorFacts
    from periscope.core import JSONObject


def encode_error(facts: ErrorFacts) -> JSONObject:
    """Pure: OpenAI's error object. What is wrong with a whole conversation is wrong with `input`.

    A field `messages` that was sent here keeps its name: it is refused as one that is not supported.
    """
    is_conversation = facts.param == "messages" and facts.row is not ROWS[UnsupportedParameter]
    return encode_openai_error(replace(facts, param="input") if is_conversation else facts)
