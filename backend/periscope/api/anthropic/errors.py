"""Errors as Anthropic's error objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.api.errors import ErrorFacts
    from periscope.core import JSONObject

#: Status -> Anthropic's type. Other statuses below 500 are `invalid_request_error`, those from 500 on `api_error`.
_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    504: "timeout_error",
}
#: Claude Code makes room in the conversation when an error says this.
_TOO_LONG = "prompt is too long"


def encode_error(facts: ErrorFacts) -> JSONObject:
    """Pure: Anthropic's error object, which is also the data of an `error` event.

    `code`, `param` and `retry_after` are this server's, with the values that they have in every dialect.
    """
    is_too_long = facts.row.code == "context_length_exceeded"
    told: JSONObject = {
        "type": _type(facts),
        "message": f"{_TOO_LONG}: {facts.message}" if is_too_long else facts.message,
        "code": facts.row.code,
    }
    if facts.param is not None:
        told["param"] = facts.param
    if facts.retry_after_s is not None:
        told["retry_after"] = facts.retry_after_s
    return {"type": "error", "error": told, "request_id": facts.request_id or None}


def _type(facts: ErrorFacts) -> str:
    if facts.retry_after_s is not None:
        return "overloaded_error"
    return _TYPES.get(facts.row.status, "invalid_request_error" if facts.row.status < 500 else "api_error")
