"""Periscope's own routes under `/api`: what no client's dialect has a word for."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from periscope.api.body import read_json
from periscope.api.disconnect import while_connected
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.validation import Wire, validate
from periscope.core import ImagePart

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend


class CaptionsWire(Wire):
    """`POST /api/captions`: pictures as `data:` URLs, and the text model whose captioner is asked."""

    model: str | None = None
    images: Annotated[list[str], Field(min_length=1)]


def control_router(backend: ChatBackend) -> APIRouter:
    """Everything under `/api`."""
    router = APIRouter(prefix="/api")

    @router.post("/captions")
    async def create_captions(request: Request) -> Response:
        wire = validate(CaptionsWire, await read_json(request))
        record_of(request.scope).model = wire.model or ""
        images = tuple(ImagePart(url, f"images[{i}]") for i, url in enumerate(wire.images))
        captions = await while_connected(backend.caption(wire.model or "", images), request.receive)
        return JSONReply({"captions": [asdict(caption) for caption in captions]})

    return router
