"""The routes of `/v1/responses`. What they do is imported with their first request: few servers are sent one."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.commands import refuse_fields
from periscope.api.errors import UnsupportedParameter
from periscope.api.openapi import documented
from periscope.api.openapi.places import Places, shapes
from periscope.api.replies import GET, JSONReply
from periscope.api.responses.listing import PAGE_QUERY, refuse_streaming
from periscope.api.routing import APIRouter
from periscope.api.wording import clip

if TYPE_CHECKING:
    from collections.abc import Callable

    from periscope.api.backend import ChatBackend, ToolServers
    from periscope.api.responses.endpoints import ResponsesEndpoints
    from periscope.api.settings import ApiSettings
    from periscope.turns import TurnStore

_PREFIX: Final = "/v1/responses"
_wires: Final = Places("periscope.api.responses.schema")


def responses_router(
    backend: ChatBackend, settings: ApiSettings, turns: TurnStore, servers: ToolServers | None
) -> APIRouter:
    """The routes of `/v1/responses`: to answer a conversation, and to read and delete kept responses."""

    @cache
    def endpoints() -> ResponsesEndpoints:
        from periscope.api.responses.endpoints import ResponsesEndpoints

        return ResponsesEndpoints(backend, settings, turns, servers)

    router = APIRouter()
    router.include_router(_answers(endpoints))
    router.include_router(_kept(endpoints))
    return router


def _answers(endpoints: Callable[[], ResponsesEndpoints]) -> APIRouter:
    router = APIRouter(_PREFIX)

    @router.post(
        "",
        **documented(
            "Responses",
            "Answers a conversation.",
            shapes.Response,
            body=_wires.ResponsesWire,
            example={"input": "Hello!", "max_output_tokens": 16, "store": False},
            events="OpenAI's events of a response, from `response.created` to `response.completed`.",
        ),
    )
    async def create_response(request: Request) -> Response:
        return await endpoints().create(request)

    @router.post(
        "/input_tokens",
        **documented(
            "Responses",
            "The number of tokens of a conversation.",
            shapes.InputTokens,
            body=_wires.PromptWire,
            example={"input": "Hello!"},
        ),
    )
    async def count_input_tokens(request: Request) -> Response:
        return await endpoints().count(request)

    return router


def _kept(endpoints: Callable[[], ResponsesEndpoints]) -> APIRouter:
    router = APIRouter(_PREFIX)

    @router.api_route(
        "/{response_id}", methods=GET, **documented("Responses", "A response that is kept.", shapes.Response)
    )
    async def retrieve_response(response_id: str, request: Request) -> Response:
        refuse_streaming(request)
        return JSONReply(await endpoints().stored.response(response_id))

    @router.delete("/{response_id}", **documented("Responses", "Drops a response.", shapes.DeletedResponse))
    async def delete_response(response_id: str) -> Response:
        await endpoints().stored.delete(response_id)
        return JSONReply({"id": response_id, "object": "response", "deleted": True})

    @router.api_route(
        "/{response_id}/input_items",
        methods=GET,
        **documented("Responses", "What a kept response has answered.", shapes.ItemList, query=PAGE_QUERY),
    )
    async def list_input_items(response_id: str, request: Request) -> Response:
        return await endpoints().input_items(response_id, request)

    @router.post(
        "/{response_id}/cancel", **documented("Responses", "Refused: none is made in the background.", status=None)
    )
    async def cancel_response(response_id: str, request: Request) -> Response:
        await refuse_fields(request)
        await endpoints().stored.response(response_id)
        raise UnsupportedParameter(
            "Only responses that are made in the background can be cancelled, and this server makes none. Close the "
            f"connection of a response that is being made, or send POST /api/requests/{clip(response_id)}/cancel.",
            param="response_id",
        )

    return router
