"""`GET /openapi.json`: the server's own document, for tools. No page shows it: it would load scripts from a CDN."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.api.openapi.declare import documented
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from periscope.core import JSONObject


def openapi_router(app: Starlette, version: str) -> APIRouter:
    """The route over the document of all routes of this app, which the first request makes."""
    router = APIRouter()
    made: list[JSONObject] = []

    @router.api_route("/openapi.json", methods=GET, **documented("Probes", "This document."))
    async def show_openapi() -> JSONReply:
        if not made:
            from periscope.api.openapi.build import openapi_document

            made.append(openapi_document(app.routes, version))
        return JSONReply(made[0])

    return router
