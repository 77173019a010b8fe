"""A request's id, its line in the access log, and the answer to errors that no other layer handled."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

from periscope.api.error_replies import error_reply, let_go
from periscope.api.errors import CUT_OFF, ClientGone
from periscope.api.record import record_of
from periscope.api.wording import clip
from periscope.core import TRACE_PARENT, TraceParent
from periscope.errors import ServerStopping

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from periscope.api.backend import MetricsBackend
    from periscope.api.record import RequestRecord

logger = logging.getLogger(__name__)

#: The logged status of a request whose client disconnected before its answer; nginx uses the same number.
CLIENT_CLOSED_REQUEST = 499
#: Supervisors and watchers request these every few seconds, so they are logged at info level only if they fail.
_PROBES = frozenset({"/", "/livez", "/readyz", "/health", "/metrics", "/api/status", "/api/requests"})
#: Each client of MCP tries a `GET` when it connects and a `DELETE` when it leaves, and goes on with their 405.
_TRIED = frozenset({"/mcp"})

#: Of the W3C headers that join a request to a trace; longer ones are not the caller's to send.
_MAX_TRACE_CHARS = 512


class RequestLog:
    """ASGI layer. Logs one line per request: id, method, path, status, time, model, name of the key; no content.

    The same facts go to `metrics`. What the request starts belongs to the trace that its headers name.
    """

    def __init__(self, app: ASGIApp, metrics: MetricsBackend | None = None) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        record = record_of(scope)
        status: int | None = None
        is_gone = False

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *record.headers]}
            await send(message)

        started = time.monotonic()
        TRACE_PARENT.set(_trace_parent(scope))
        try:
            await self._app(scope, receive, with_id)
        except ClientGone:
            is_gone = True
        except asyncio.CancelledError:  # the server stops, and its time to finish requests is over
            if status is None:
                await error_reply(ServerStopping(CUT_OFF), scope)(scope, receive, with_id)
            raise
        except Exception as error:
            logger.exception("unexpected error", extra={"request_id": record.id, "model": record.model})
            if status is None:
                await error_reply(error, scope)(scope, receive, with_id)
            let_go(error)
        finally:
            told = CLIENT_CLOSED_REQUEST if is_gone or status is None else status
            _log(scope, record, told, round((time.monotonic() - started) * 1000))
            if self._metrics is not None:
                self._metrics.answered(
                    route=record.route, status=told, error=record.error, model=record.answered_by or record.model
                )


class RouteNote:
    """ASGI layer, inside all others: notes in the record which route has answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
        finally:
            record_of(scope).route = getattr(scope.get("route"), "path", "")


def _trace_parent(scope: Scope) -> TraceParent | None:
    headers = {name: value for name, value in scope["headers"] if name in {b"traceparent", b"tracestate"}}
    if b"traceparent" not in headers or any(len(value) > _MAX_TRACE_CHARS for value in headers.values()):
        return None
    return TraceParent(headers[b"traceparent"].decode("latin-1"), headers.get(b"tracestate", b"").decode("latin-1"))


def _log(scope: Scope, record: RequestRecord, status: int, elapsed_ms: int) -> None:
    is_routine = (scope["path"] in _PROBES and status < 400) or (scope["path"] in _TRIED and status == 405)
    level = logging.DEBUG if is_routine else logging.INFO
    if not logger.isEnabledFor(level):
        return
    logger.log(
        level,
        "%s %s status=%d ms=%d model=%s error=%s key=%s id=%s",
        clip(scope["method"]),
        clip(scope["path"]),
        status,
        elapsed_ms,
        "-" if record.model is None else clip(record.model) or "default",
        record.error or "-",
        record.key or "-",
        record.id,
        extra={"request_id": record.id, "model": record.model and clip(record.model)},
    )
