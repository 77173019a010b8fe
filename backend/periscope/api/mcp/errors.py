"""Errors as JSON-RPC's error objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from periscope.api.errors import ErrorFacts
    from periscope.core import JSONObject

#: Our code -> JSON-RPC's. -32800 is what the SDKs of MCP answer a request with that was cancelled.
_NUMBERS: Final[Mapping[str, int]] = {"invalid_json": -32700, "request_cancelled": -32800}
_INVALID_REQUEST: Final = -32600
_INTERNAL_ERROR: Final = -32603


def encode_error(facts: ErrorFacts) -> JSONObject:
    """Pure: an error of no request in particular, since its id is not known where most errors are told.

    `data` has `code`, `param` and `retry_after` of this server, with the values that they have in every dialect.
    """
    data: JSONObject = {"code": facts.row.code}
    if facts.param is not None:
        data["param"] = facts.param
    if facts.retry_after_s is not None:
        data["retry_after"] = facts.retry_after_s
    number = _NUMBERS.get(facts.row.code, _INVALID_REQUEST if facts.row.status < 500 else _INTERNAL_ERROR)
    return {"jsonrpc": "2.0", "id": None, "error": {"code": number, "message": facts.message, "data": data}}
