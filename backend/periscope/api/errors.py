"""Errors on the wire: the one table from error classes to status, type and code, and OpenAI's error object."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from starlette.exceptions import HTTPException

from periscope import errors as e
from periscope.api.paths import way_on
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.wording import clip

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from periscope.core import JSONObject


class UnsupportedParameter(e.InvalidRequest):
    """The field would change the answer, and this server cannot do what it asks: refused, never ignored."""


class InvalidJSON(e.InvalidRequest):
    """The body is not the JSON it should be."""


class ContentCodingRefused(e.InvalidRequest):
    """The body is compressed in a way that is not known here.

    Attributes:
        supported: the codings that are, as the header `Accept-Encoding` names them.
    """

    def __init__(self, message: str, *, supported: str) -> None:
        super().__init__(message)
        self.supported = supported


class RequestTimedOut(e.InvalidRequest):
    """The client stopped sending in the middle of its request, or sends too slowly."""


class OriginRefused(e.HostRefused):
    """A web page of another origin sent this, and no setting lets it."""


class ClientGone(Exception):
    """The client closed the connection; its work has been cancelled and has ended. Nobody is left to answer."""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How one class of errors looks on the wire."""

    status: int
    type: str
    code: str


#: Why a request that outlasted the server's time to finish has no answer, or no end.
CUT_OFF = "The server stopped before the answer was complete. Send the request again once it runs."

_CLIENT = "invalid_request_error"
_SERVER = "server_error"
UNEXPECTED = ErrorRow(500, _SERVER, "internal_error")

ROWS: Mapping[type[Exception], ErrorRow] = {
    e.PeriscopeError: UNEXPECTED,
    # The client's to mend
    e.RequestError: ErrorRow(400, _CLIENT, "invalid_request"),
    e.InvalidRequest: ErrorRow(400, _CLIENT, "invalid_value"),
    UnsupportedParameter: ErrorRow(400, _CLIENT, "unsupported_parameter"),
    InvalidJSON: ErrorRow(400, _CLIENT, "invalid_json"),
    ContentCodingRefused: ErrorRow(415, _CLIENT, "unsupported_content_encoding"),
    RequestTimedOut: ErrorRow(408, _CLIENT, "request_timeout"),
    e.ImageRejected: ErrorRow(400, _CLIENT, "image_input_unsupported"),
    e.ImageInvalid: ErrorRow(400, _CLIENT, "invalid_image"),
    e.ImageSourceRefused: ErrorRow(400, _CLIENT, "image_source_refused"),
    e.ContextLengthExceeded: ErrorRow(400, _CLIENT, "context_length_exceeded"),
    e.MemoryExceeded: ErrorRow(400, _CLIENT, "context_length_exceeded"),
    e.AuthenticationFailed: ErrorRow(401, _CLIENT, "invalid_api_key"),
    e.HostRefused: ErrorRow(403, _CLIENT, "host_refused"),
    OriginRefused: ErrorRow(403, _CLIENT, "origin_refused"),
    e.ModelNotFound: ErrorRow(404, _CLIENT, "model_not_found"),
    e.RequestNotFound: ErrorRow(404, _CLIENT, "request_not_found"),
    e.RouteNotFound: ErrorRow(404, _CLIENT, "route_not_found"),
    e.MethodNotAllowed: ErrorRow(405, _CLIENT, "method_not_allowed"),
    e.ModelPinned: ErrorRow(409, _CLIENT, "model_pinned"),
    e.BodyTooLarge: ErrorRow(413, _CLIENT, "body_too_large"),
    # The reader of a stream was too slow: it sees this as an event, for its status line is long sent.
    e.ReaderTooSlow: ErrorRow(408, _CLIENT, "reader_too_slow"),
    # An operator's will. Not 409 or 5xx: the official SDKs would send it again, and it would run after all.
    e.RequestCancelled: ErrorRow(499, _CLIENT, "request_cancelled"),
    # Ours
    e.ServerBusy: ErrorRow(503, _SERVER, "server_busy"),
    e.ServerStopping: ErrorRow(503, _SERVER, "server_stopping"),
    e.ModelUnavailable: ErrorRow(503, _SERVER, "model_unavailable"),
    e.CaptionerUnavailable: ErrorRow(503, _SERVER, "captioner_unavailable"),
    e.ModelLoadError: ErrorRow(503, _SERVER, "model_load_failed"),
    e.HubError: ErrorRow(502, _SERVER, "hub_error"),
    e.RemoteError: ErrorRow(502, _SERVER, "remote_error"),
    e.RemoteUnreachable: ErrorRow(502, _SERVER, "remote_unreachable"),
    e.RemoteTimedOut: ErrorRow(504, _SERVER, "remote_timeout"),
    e.RemoteRefused: ErrorRow(502, _SERVER, "remote_refused"),
    e.RemoteAnswerBroken: ErrorRow(502, _SERVER, "remote_answer_broken"),
    e.CaptionFailed: ErrorRow(503, _SERVER, "caption_failed"),
    e.EngineClosed: ErrorRow(503, _SERVER, "engine_closed"),
    e.GenerationFailed: ErrorRow(500, _SERVER, "generation_failed"),
    e.ConfigError: ErrorRow(500, _SERVER, "config_error"),
}


def row_of(error: Exception) -> ErrorRow:
    """The row of the error's class, else of its nearest ancestor, else `UNEXPECTED`."""
    return next((ROWS[family] for family in type(error).__mro__ if family in ROWS), UNEXPECTED)


def error_object(error: Exception, scope: Scope) -> JSONObject:
    """OpenAI's error object; tells the request's record. What nobody raised on purpose keeps its text to itself.

    Where trying again helps, `retry_after` says after how many seconds: a stream's headers, which would say it, are
    long sent when an error comes as an event.
    """
    row = row_of(error)
    record = record_of(scope)
    record.error = row.code
    message = (
        error.message
        if isinstance(error, e.PeriscopeError)
        else f"The server failed unexpectedly; its log tells why, under {record.id}."
    )
    param = error.param if isinstance(error, e.RequestError) else None
    told: JSONObject = {"message": message, "type": row.type, "param": param, "code": row.code}
    if isinstance(error, e.ServerBusy):
        told["retry_after"] = error.retry_after_s
    return {"error": told}


def error_reply(error: Exception, scope: Scope, headers: Mapping[str, str] | None = None) -> JSONReply:
    """The whole HTTP answer for an error."""
    extra = dict(headers or {})
    if isinstance(error, e.ServerBusy):
        extra["retry-after"] = str(error.retry_after_s)
    if isinstance(error, e.AuthenticationFailed):
        extra["www-authenticate"] = "Bearer"
    if isinstance(error, ContentCodingRefused):
        extra["accept-encoding"] = error.supported
    if isinstance(error, RequestTimedOut):
        extra["connection"] = "close"  # the rest of the request may still come: it is not the next one
    return JSONReply(error_object(error, scope), status_code=row_of(error).status, headers=extra)


async def on_periscope_error(request: Request, error: Exception) -> JSONReply:
    """Exception handler for the whole tree."""
    reply = error_reply(error, request.scope)
    let_go(error)
    return reply


def let_go(error: BaseException | None) -> None:
    """Free what the functions held that an error went through, once it has been told.

    Tasks and frames on its way know the error, and it knows them by its traceback: the request's pictures would stay
    in memory until Python's collector comes by, which may be many requests later.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


async def on_http_exception(request: Request, error: HTTPException) -> JSONReply:
    """Exception handler for what the router raises: no such path, no such method."""
    path = clip(request.url.path)
    match error.status_code:
        case 404:
            told: e.RequestError = e.RouteNotFound(f"There is no {path} here. {way_on(request.url.path)}")
        case 405:
            allowed = (error.headers or {}).get("Allow", "another method")
            told = e.MethodNotAllowed(f"{path} does not take {request.method}. Use {allowed}.")
        case _:
            told = e.InvalidRequest(clip(str(error.detail)))
    return error_reply(told, request.scope, error.headers)


HANDLERS: Mapping[int | type[Exception], Any] = {
    e.PeriscopeError: on_periscope_error,
    HTTPException: on_http_exception,
}
