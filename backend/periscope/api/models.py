"""The routes of `/v1/models`, which OpenAI's and Anthropic's clients share. Each gets its own dialect's shape."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.requests import Request

from periscope.api.anthropic import models as anthropic
from periscope.api.dialects import speaks_anthropic
from periscope.api.openai import models as openai
from periscope.api.replies import GET, JSONReply
from periscope.core import require_model

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend
    from periscope.api.settings import ApiSettings


def models_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """The list of models, and each of them."""
    router = APIRouter(prefix="/v1/models")

    @router.api_route("", methods=GET)
    async def list_models(request: Request) -> JSONReply:
        dialect = anthropic if speaks_anthropic(request.scope) else openai
        return JSONReply(dialect.encode_models(backend.models()))

    @router.api_route("/{name:path}", methods=GET)
    async def retrieve_model(request: Request, name: str) -> JSONReply:
        cards = backend.models()  # the default model comes first
        default = next(iter(cards), None)
        if not speaks_anthropic(request.scope):
            return JSONReply(openai.encode_model(require_model(cards, name, default=default)))
        meant = anthropic.model_for(name, cards, settings.anthropic_model)
        return JSONReply(anthropic.encode_model(require_model(cards, meant, default=default), name))

    return router
