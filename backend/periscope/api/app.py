"""The ASGI app: layers from the outside in, then the routes. Its caller starts and stops it and owns the sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.applications import Starlette
from starlette.middleware import Middleware

from periscope.api.access_keys import AccessKeys
from periscope.api.anthropic.routes import anthropic_router
from periscope.api.auth import Cors, HostGuard, KeyGuard
from periscope.api.client_bounds import ClientBounds
from periscope.api.control import control_router
from periscope.api.dialects import DIALECTS, DialectByPath, DialectTable
from periscope.api.error_replies import HANDLERS
from periscope.api.intake import BodyIntake
from periscope.api.logs import logs_router
from periscope.api.mcp.routes import mcp_router
from periscope.api.metrics import metrics_router
from periscope.api.models import discovery_router, models_router
from periscope.api.openai.embeddings import embedding_router
from periscope.api.openai.routes import openai_router
from periscope.api.openai.tokenizing import tokenizing_router
from periscope.api.openapi.route import openapi_router
from periscope.api.paths import IntendedPaths
from periscope.api.probes import probe_router
from periscope.api.request_log import RequestLog, RouteNote
from periscope.api.responses.routes import responses_router
from periscope.api.server_options import ServerOptions
from periscope.core import AllowedOrigins
from periscope.log_tail import LogTail
from periscope.turns import TurnStore

if TYPE_CHECKING:
    from periscope.api.backend import (
        ChatBackend,
        ControlBackend,
        EmbeddingBackend,
        McpBackend,
        MetricsBackend,
        ToolServers,
    )
    from periscope.api.settings import ApiSettings


def create_app(
    backend: ChatBackend,
    control: ControlBackend,
    settings: ApiSettings,
    *,
    keys: AccessKeys | None = None,
    embeddings: EmbeddingBackend | None = None,
    log: LogTail | None = None,
    mcp: McpBackend | None = None,
    metrics: MetricsBackend | None = None,
    turns: TurnStore | None = None,
    tool_servers: ToolServers | None = None,
    dialects: DialectTable = DIALECTS,
) -> Starlette:
    """The app over a chat backend and a control backend. No docs pages: they would load scripts from a CDN.

    Args:
        keys: those that open the server; None = it is open.
        embeddings: answers `/v1/embeddings`; None = there is no such route.
        log: the lines of `/api/logs`; None = none are kept.
        mcp: has the tools of `/mcp`; None = they are off, or what they need is not installed.
        metrics: has what `/metrics` tells; None = they are off.
        turns: keeps responses for later requests; the caller closes it. None = in memory, for this app alone.
        tool_servers: the MCP servers whose tools requests to `/v1/responses` may have called; None = there are none.
        dialects: how errors are told on which paths.
    """
    routers = [  # tried in this order: what comes most often is first
        openai_router(backend, settings),
        probe_router(backend, settings),
        tokenizing_router(backend, settings),
        *([] if embeddings is None else [embedding_router(embeddings, backend, settings)]),
        responses_router(backend, settings, turns or TurnStore(), tool_servers),
        anthropic_router(backend, settings),
        mcp_router(mcp, settings),
        models_router(backend, settings),
        discovery_router(backend, settings),
        control_router(backend, control, settings),
        logs_router(log or LogTail()),
        metrics_router(metrics),
    ]
    app = Starlette(
        routes=[route for router in routers for route in router.routes],
        middleware=_layers(settings, keys or AccessKeys(), dialects, metrics),
        exception_handlers=dict(HANDLERS),
    )
    app.router.redirect_slashes = False
    app.routes.extend(openapi_router(app, settings.version or "0").routes)
    return app


def _layers(
    settings: ApiSettings, keys: AccessKeys, dialects: DialectTable, metrics: MetricsBackend | None
) -> list[Middleware]:
    """The layers, outermost first. CORS comes before the API key, because a browser's preflight carries no key."""
    origins = AllowedOrigins(settings.cors_origins)
    return [
        Middleware(DialectByPath, dialects=dialects),
        Middleware(RequestLog, metrics=metrics),
        Middleware(IntendedPaths),
        Middleware(HostGuard, allowed_hosts=settings.allowed_hosts, origins=origins),
        Middleware(Cors, origins=origins),
        Middleware(ServerOptions),
        Middleware(KeyGuard, keys=keys),
        Middleware(ClientBounds, max_requests=settings.max_requests_per_client),
        Middleware(BodyIntake, settings=settings),
        Middleware(RouteNote),
    ]
