"""Routes for supervisors and load balancers: `/`, `/livez`, `/readyz`, `/health`. They use no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from periscope.api.error_replies import error_object
from periscope.api.openapi import documented
from periscope.api.openapi.places import own_shapes
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter
from periscope.errors import ModelUnavailable

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend, Health
    from periscope.api.settings import ApiSettings
    from periscope.errors import PeriscopeError


def probe_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """Routes that belong to no dialect and need no key."""
    router = APIRouter()

    @router.api_route("/", methods=GET, **documented("Probes", "Which server this is.", own_shapes.Root))
    async def root() -> JSONReply:
        return JSONReply({"name": "periscope", "version": settings.version})

    @router.api_route("/livez", methods=GET, **documented("Probes", "The process answers.", own_shapes.Alive))
    async def livez() -> JSONReply:
        return JSONReply({"name": "periscope", "status": "alive"})

    @router.api_route(
        "/readyz",
        methods=GET,
        **documented("Probes", "Requests to the default model are served.", own_shapes.HealthReply),
    )
    async def readyz(request: Request) -> JSONReply:
        health = backend.health()
        return _reply(request, health, None if health.is_ready else _unfit("not ready", health))

    @router.api_route(
        "/health", methods=GET, **documented("Probes", "The server needs no restart.", own_shapes.HealthReply)
    )
    async def health(request: Request) -> JSONReply:
        health = backend.health()
        return _reply(request, health, None if health.is_healthy else _unfit("not healthy", health))

    return router


def _unfit(how: str, health: Health) -> ModelUnavailable:
    return ModelUnavailable(" ".join([f"The server is {how}: {health.status}.", *health.problems]))


def _reply(request: Request, health: Health, error: PeriscopeError | None) -> JSONReply:
    body = {
        "status": health.status,
        "models": dict(health.models),
        "problems": list(health.problems),
        "num_running": health.num_running,
    }
    if error is None:
        return JSONReply(body)
    return JSONReply(body | error_object(error, request.scope), status_code=503)
