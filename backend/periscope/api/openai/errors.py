"""Errors as OpenAI's error objects. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.api.errors import ErrorFacts
    from periscope.core import JSONObject


def encode_error(facts: ErrorFacts) -> JSONObject:
    """Pure: OpenAI's error object.

    `retry_after` repeats the header of that name. It is for errors in the middle of a stream, which come as an
    event, long after the headers.
    """
    told: JSONObject = {
        "message": facts.message,
        "type": facts.row.type,
        "param": facts.param,
        "code": facts.row.code,
    }
    if facts.retry_after_s is not None:
        told["retry_after"] = facts.retry_after_s
    return {"error": told}
