"""`GET /metrics`: what Prometheus scrapes. Behind the API key, like the status, because it tells who uses what."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.openapi import documented
from periscope.api.replies import GET
from periscope.api.routing import APIRouter
from periscope.errors import RouteNotFound

if TYPE_CHECKING:
    from periscope.api.backend import MetricsBackend


def metrics_router(metrics: MetricsBackend | None) -> APIRouter:
    """Prometheus' text format, or OpenMetrics where the client asks for it."""
    router = APIRouter()

    @router.api_route(
        "/metrics",
        methods=GET,
        **documented(
            "Probes",
            "Metrics, in Prometheus' or OpenMetrics' text format.",
            "text/plain",
            "application/openmetrics-text",
        ),
    )
    async def show_metrics(request: Request) -> Response:
        if metrics is None:
            raise RouteNotFound("Metrics are off. Set `server.metrics: true` in models.yaml and restart the server.")
        content_type, text = metrics.exposition(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type})

    return router
