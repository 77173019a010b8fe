"""The one table from error classes to status, type and code. Knows no dialect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from periscope import errors as e


class UnsupportedParameter(e.InvalidRequest):
    """A field asks for something that this server does not support and that would change the answer."""


class InvalidJSON(e.InvalidRequest):
    """The body is not valid JSON, or not in UTF-8."""


class ContentCodingRefused(e.InvalidRequest):
    """The body's `Content-Encoding` is not supported.

    Attributes:
        supported: the codings that are supported, as the value of the header `Accept-Encoding`.
    """

    def __init__(self, message: str, *, supported: str) -> None:
        super().__init__(message)
        self.supported = supported


class RequestTimedOut(e.InvalidRequest):
    """The client stopped sending in the middle of its request, or sends too slowly."""


class OriginRefused(e.HostRefused):
    """A web page sent the request, and its origin is not among the allowed ones."""


class ClientGone(Exception):
    """The client closed the connection. Its work has been cancelled and has ended."""


@dataclass(frozen=True, slots=True)
class ErrorRow:
    """How the API reports one class of errors.

    Attributes:
        status: of the HTTP answer.
        type: whose fault it is, in OpenAI's terms: `invalid_request_error` or `server_error`.
        code: the kind of error, by which programs distinguish errors.
    """

    status: int
    type: str
    code: str


@dataclass(frozen=True, slots=True)
class ErrorFacts:
    """What a client learns of one error. Each dialect makes its error object from this.

    Attributes:
        message: what is wrong, the limit, and the fix.
        param: the field of the request that caused it; None if no single one did.
        retry_after_s: after how long to try again; None if that does not help.
        request_id: the request's id, as its headers tell it; "" if it has none.
    """

    row: ErrorRow
    message: str
    param: str | None = None
    retry_after_s: int | None = None
    request_id: str = ""


#: For clients whose requests still run when the server stops waiting for them.
CUT_OFF = "The server stopped before the answer was complete. Send the request again once it runs."

_CLIENT = "invalid_request_error"
_SERVER = "server_error"
UNEXPECTED = ErrorRow(500, _SERVER, "internal_error")

ROWS: Mapping[type[Exception], ErrorRow] = {
    e.PeriscopeError: UNEXPECTED,
    # Faults of the client, which can fix them.
    e.RequestError: ErrorRow(400, _CLIENT, "invalid_request"),
    e.InvalidRequest: ErrorRow(400, _CLIENT, "invalid_value"),
    UnsupportedParameter: ErrorRow(400, _CLIENT, "unsupported_parameter"),
    InvalidJSON: ErrorRow(400, _CLIENT, "invalid_json"),
    ContentCodingRefused: ErrorRow(415, _CLIENT, "unsupported_content_encoding"),
    RequestTimedOut: ErrorRow(408, _CLIENT, "request_timeout"),
    e.ImageRejected: ErrorRow(400, _CLIENT, "image_input_unsupported"),
    e.ImageInvalid: ErrorRow(400, _CLIENT, "invalid_image"),
    e.FileInvalid: ErrorRow(400, _CLIENT, "invalid_file"),
    e.DocumentInvalid: ErrorRow(400, _CLIENT, "invalid_document"),
    e.VideoInvalid: ErrorRow(400, _CLIENT, "invalid_video"),
    e.ImageSourceRefused: ErrorRow(400, _CLIENT, "image_source_refused"),
    e.ImageNotFetched: ErrorRow(400, _CLIENT, "image_not_fetched"),
    e.ContextLengthExceeded: ErrorRow(400, _CLIENT, "context_length_exceeded"),
    e.InputTooLong: ErrorRow(400, _CLIENT, "context_length_exceeded"),
    e.MemoryExceeded: ErrorRow(400, _CLIENT, "context_length_exceeded"),
    # Only by the command to read models.yaml again: whoever wrote it can mend it.
    e.ConfigError: ErrorRow(400, _CLIENT, "config_error"),
    e.AuthenticationFailed: ErrorRow(401, _CLIENT, "invalid_api_key"),
    e.HostRefused: ErrorRow(403, _CLIENT, "host_refused"),
    OriginRefused: ErrorRow(403, _CLIENT, "origin_refused"),
    e.ModelNotFound: ErrorRow(404, _CLIENT, "model_not_found"),
    # Not 503, as for other models that cannot be loaded: the official SDKs retry that, and nothing would be there.
    e.ModelNotOnDisk: ErrorRow(404, _CLIENT, "model_not_on_disk"),
    e.RequestNotFound: ErrorRow(404, _CLIENT, "request_not_found"),
    e.NotThinking: ErrorRow(409, _CLIENT, "not_thinking"),
    e.ResponseNotFound: ErrorRow(404, _CLIENT, "response_not_found"),
    e.PreviousResponseNotFound: ErrorRow(400, _CLIENT, "previous_response_not_found"),
    e.DownloadNotFound: ErrorRow(404, _CLIENT, "download_not_found"),
    e.DownloadConflict: ErrorRow(409, _CLIENT, "download_conflict"),
    e.RouteNotFound: ErrorRow(404, _CLIENT, "route_not_found"),
    e.MethodNotAllowed: ErrorRow(405, _CLIENT, "method_not_allowed"),
    e.ModelPinned: ErrorRow(409, _CLIENT, "model_pinned"),
    e.BodyTooLarge: ErrorRow(413, _CLIENT, "body_too_large"),
    # Sent as an event in the stream, whose status line was sent long before.
    e.ReaderTooSlow: ErrorRow(408, _CLIENT, "reader_too_slow"),
    # By command of an operator. Not 409 or 5xx: the official SDKs retry those, and the request would run after all.
    e.RequestCancelled: ErrorRow(499, _CLIENT, "request_cancelled"),
    # Faults of the server, or of servers that it asks.
    e.ServerBusy: ErrorRow(503, _SERVER, "server_busy"),
    e.ServerStopping: ErrorRow(503, _SERVER, "server_stopping"),
    e.ModelUnavailable: ErrorRow(503, _SERVER, "model_unavailable"),
    e.CaptionerUnavailable: ErrorRow(503, _SERVER, "captioner_unavailable"),
    e.ToolServerUnreachable: ErrorRow(502, _SERVER, "tool_server_unreachable"),
    e.ModelLoadError: ErrorRow(503, _SERVER, "model_load_failed"),
    e.FilesMissing: ErrorRow(503, _SERVER, "model_load_failed"),
    e.HubError: ErrorRow(502, _SERVER, "hub_error"),
    e.RemoteError: ErrorRow(502, _SERVER, "remote_error"),
    e.RemoteUnreachable: ErrorRow(502, _SERVER, "remote_unreachable"),
    e.RemoteTimedOut: ErrorRow(504, _SERVER, "remote_timeout"),
    e.RemoteRefused: ErrorRow(502, _SERVER, "remote_refused"),
    e.RemoteAnswerBroken: ErrorRow(502, _SERVER, "remote_answer_broken"),
    e.CaptionFailed: ErrorRow(503, _SERVER, "caption_failed"),
    e.CaptionEmpty: ErrorRow(503, _SERVER, "caption_failed"),
    e.EngineClosed: ErrorRow(503, _SERVER, "engine_closed"),
    e.GenerationFailed: ErrorRow(500, _SERVER, "generation_failed"),
}


def row_of(error: Exception) -> ErrorRow:
    """The row of the error's class, else of its nearest ancestor, else `UNEXPECTED`."""
    return next((ROWS[family] for family in type(error).__mro__ if family in ROWS), UNEXPECTED)


def facts_of(error: Exception, request_id: str) -> ErrorFacts:
    """Pure: what the client learns of an error. For an unexpected one that is the id of its log line, not its text."""
    row = row_of(error)
    if not isinstance(error, e.PeriscopeError):
        told = f"The server failed unexpectedly. Its log has the details, under {request_id}."
        return ErrorFacts(row, told, request_id=request_id)
    return ErrorFacts(
        row,
        error.message,
        param=error.param if isinstance(error, e.RequestError) else None,
        retry_after_s=error.retry_after_s if isinstance(error, e.ServerBusy) else None,
        request_id=request_id,
    )
