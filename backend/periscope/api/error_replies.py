"""Answers for errors, in the dialect of the request's path, for exception handlers and ASGI layers."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException
from starlette.routing import Match

from periscope import errors as e
from periscope.api.dialects import encoder_of
from periscope.api.errors import ContentCodingRefused, RequestTimedOut, facts_of, row_of
from periscope.api.paths import is_absent, way_on
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.wording import clip

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Scope

    from periscope.core import JSONObject

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


def error_object(error: Exception, scope: Scope) -> JSONObject:
    """The error object in the dialect of the request's path. Notes its code for the access log."""
    record = record_of(scope)
    facts = facts_of(error, record.id)
    record.error = facts.row.code
    return encoder_of(scope)(facts)


def error_reply(error: Exception, scope: Scope, headers: Mapping[str, str] | None = None) -> JSONReply:
    """The HTTP answer for an error. Its status and headers are the same in all dialects."""
    extra = dict(headers or {})
    if isinstance(error, e.ServerBusy):
        extra["retry-after"] = str(error.retry_after_s)
    if isinstance(error, e.AuthenticationFailed):
        extra["www-authenticate"] = "Bearer"
    if isinstance(error, ContentCodingRefused):
        extra["accept-encoding"] = error.supported
    if isinstance(error, RequestTimedOut):
        extra["connection"] = "close"  # the rest of this request may still arrive, and must not be read as the next one
    return JSONReply(error_object(error, scope), status_code=row_of(error).status, headers=extra)


async def on_periscope_error(request: Request, error: Exception) -> JSONReply:
    """Exception handler for every `PeriscopeError`."""
    reply = error_reply(error, request.scope)
    let_go(error)
    return reply


def let_go(error: BaseException | None) -> None:
    """Clear the frames that an error went through, once the client has been told.

    The error's traceback refers to those frames, and they refer to the request's images: a reference cycle, which would
    keep the images in memory until Python's garbage collector runs, perhaps many requests later.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


async def on_http_exception(request: Request, error: HTTPException) -> JSONReply:
    """Exception handler for the router's errors: an unknown path, or a method that the path does not take."""
    path = clip(request.url.path)
    match 404 if is_absent(request.url.path) else error.status_code:
        case 404:
            told: e.RequestError = e.RouteNotFound(f"There is no {path} here. {way_on(request.url.path)}")
        case 405:
            allowed = ", ".join(_methods(request))
            told = e.MethodNotAllowed(f"{path} does not take {request.method}. Use {allowed}.")
            return error_reply(told, request.scope, {"allow": allowed})
        case _:
            told = e.InvalidRequest(clip(str(error.detail)))
    return error_reply(told, request.scope, error.headers)


def _methods(request: Request) -> list[str]:
    """The methods that the path takes. The router's own error has those of the first of the path's routes alone."""
    return [method for method in _METHODS if _is_taken(request, method)]


def _is_taken(request: Request, method: str) -> bool:
    scope = {**request.scope, "method": method}
    return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)


HANDLERS: Mapping[int | type[Exception], Any] = {
    e.PeriscopeError: on_periscope_error,
    HTTPException: on_http_exception,
}
