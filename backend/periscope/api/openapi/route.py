"""`GET /openapi.json`: the server's own document, for tools. No page shows it: it would load scripts from a CDN."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from periscope.api.openapi.build import OpenAPIDocument
from periscope.api.openapi.declare import documented
from periscope.api.replies import GET, JSONReply


def openapi_router(app: FastAPI) -> APIRouter:
    """The route over the document of all routes of this app, those that are added later among them."""
    router = APIRouter()
    document = OpenAPIDocument(app)

    @router.api_route("/openapi.json", methods=GET, **documented("Probes", "This document."))
    async def show_openapi() -> JSONReply:
        return JSONReply(document.get())

    return router
