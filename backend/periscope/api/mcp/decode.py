"""Decodes one JSON-RPC message of an MCP client. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeGuard

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from periscope.api.validation import EXPECTED, Wire, validate
from periscope.core import JSONObject
from periscope.errors import InvalidRequest

#: Beyond it a whole number is none for clients in JavaScript; the SDK's own ids count from 0.
_MAX_ID: Final = 2**53
_MAX_NAME: Final = 200
#: Stands in the message for an image, which is handed on beside it: a message is copied several times, and kept until
#: its answer is complete.
_STAND_IN: Final = "data:,"


def _id(value: Any) -> Any:
    if isinstance(value, str) and len(value) <= _MAX_NAME:
        return value
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and abs(value) <= _MAX_ID):
        return value
    raise PydanticCustomError(EXPECTED, f"a string of at most {_MAX_NAME} characters or a whole number up to 2**53")


RequestId: TypeAlias = Annotated[str | int | None, BeforeValidator(_id)]


class McpMessage(Wire):
    """The body of `POST /mcp`: a JSON-RPC request, a notification (without `id`), or an answer (without `method`)."""

    jsonrpc: Literal["2.0"]
    id: RequestId = None
    method: Annotated[str, Field(min_length=1, max_length=_MAX_NAME)] | None = None
    params: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class McpCall:
    """A request to be answered. `progress_token`: the client wants to hear how it goes on; None = it does not."""

    id: str | int
    method: str
    message: JSONObject
    image: str | None
    progress_token: str | int | None


@dataclass(frozen=True, slots=True)
class McpCancellation:
    """The client no longer waits for the answer to its request of this id."""

    id: str | int


def decode_message(body: Any) -> McpCall | McpCancellation | None:
    """What a message asks for; None = nothing, as other notifications and answers do.

    Raises:
        InvalidRequest: it is no single JSON-RPC message.
    """
    if isinstance(body, list):
        raise InvalidRequest("The body is a list of messages. Send one JSON-RPC message in each request.")
    wire = validate(McpMessage, body)
    params = wire.params or {}
    if wire.method is None:
        if wire.id is None:
            raise InvalidRequest("`method` is missing.", param="method")
        return None
    if "id" not in wire.model_fields_set:
        asked = params.get("requestId")
        return McpCancellation(asked) if wire.method == "notifications/cancelled" and _is_id(asked) else None
    if wire.id is None:
        raise InvalidRequest("`id` is null. Give a request an id, and leave it out of a notification.", param="id")
    image = _taken_image(params) if wire.method == "tools/call" else None
    return McpCall(wire.id, wire.method, body, image, _progress_token(params))


def _progress_token(params: JSONObject) -> str | int | None:
    meta = params.get("_meta")
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if _is_id(token) else None


def _is_id(value: Any) -> TypeGuard[str | int]:
    return isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool))


def _taken_image(params: JSONObject) -> str | None:
    arguments = params.get("arguments")
    if not isinstance(arguments, dict) or not isinstance(image := arguments.get("image"), str):
        return None
    arguments["image"] = _STAND_IN
    return image
