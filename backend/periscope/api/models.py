"""The routes by which clients learn what models there are and what each of them takes, in the shape that each reads.

OpenAI's and Anthropic's clients share `/v1/models`; LM Studio's and llama.cpp's have paths of their own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from periscope.api.anthropic import models as anthropic
from periscope.api.dialects import speaks_anthropic
from periscope.api.discovery import codex_catalogue, llama_cpp_props, lm_studio_v0_model, lm_studio_v1_model
from periscope.api.openai import models as openai
from periscope.api.openapi import Query, documented
from periscope.api.openapi.places import discovery_shapes, shapes
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter
from periscope.core import require_model

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend
    from periscope.api.settings import ApiSettings
    from periscope.core import ModelCard

#: Codex alone sends it, and reads `models` where others read `data`.
_OF_CODEX = "client_version"


def models_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """The list of models, and each of them, for OpenAI's and Anthropic's clients and Codex."""
    router = APIRouter(prefix="/v1/models")

    @router.api_route(
        "",
        methods=GET,
        **documented(
            "OpenAI", "The models, in the shape of the client's dialect.", shapes.OpenAIModels, shapes.AnthropicModels
        ),
    )
    async def list_models(request: Request) -> JSONReply:
        cards = backend.models()
        if speaks_anthropic(request.scope):
            return JSONReply(anthropic.encode_models(cards))
        catalogue = {"models": codex_catalogue(cards)} if _OF_CODEX in request.query_params else {}
        return JSONReply(openai.encode_models(cards) | catalogue)

    @router.api_route(
        "/{name:path}", methods=GET, **documented("OpenAI", "One model.", shapes.OpenAIModel, shapes.AnthropicModel)
    )
    async def retrieve_model(request: Request, name: str) -> JSONReply:
        cards = backend.models()  # the default model comes first
        if not speaks_anthropic(request.scope):
            return JSONReply(openai.encode_model(_named(backend, name)))
        meant = anthropic.model_for(name, cards, settings.anthropic_model)
        return JSONReply(anthropic.encode_model(_named(backend, meant), name))

    return router


def discovery_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """What LM Studio's and llama.cpp's clients ask."""
    router = APIRouter()

    @router.api_route(
        "/api/v0/models",
        methods=GET,
        **documented("Discovery", "The models, as LM Studio lists them.", discovery_shapes.LMStudioModels),
    )
    async def list_lm_studio_v0() -> JSONReply:
        return JSONReply({"object": "list", "data": [lm_studio_v0_model(card) for card in backend.models()]})

    @router.api_route(
        "/api/v0/models/{name:path}",
        methods=GET,
        **documented("Discovery", "One model, as LM Studio tells it.", discovery_shapes.LMStudioModel),
    )
    async def retrieve_lm_studio_v0(name: str) -> JSONReply:
        return JSONReply(lm_studio_v0_model(_named(backend, name)))

    @router.api_route(
        "/api/v1/models",
        methods=GET,
        **documented(
            "Discovery", "The models, as LM Studio's second API lists them.", discovery_shapes.LMStudioV1Models
        ),
    )
    async def list_lm_studio_v1() -> JSONReply:
        return JSONReply({"models": [lm_studio_v1_model(card) for card in backend.models()]})

    @router.api_route(
        "/props",
        methods=GET,
        **documented(
            "Discovery",
            "One model, as llama.cpp's server tells it.",
            discovery_shapes.LlamaProps,
            query=(Query("model", {"type": "string", "default": ""}, "Its name; the default model if left out."),),
        ),
    )
    async def props(request: Request) -> JSONReply:
        asked = request.query_params.get("model", "")
        return JSONReply(llama_cpp_props(_named(backend, asked), settings.version))

    return router


def _named(backend: ChatBackend, name: str) -> ModelCard:
    """The model of this name or alias; the default one, which comes first, for "" and "default"."""
    cards = backend.models()
    return require_model(cards, name, default=next(iter(cards), None))
