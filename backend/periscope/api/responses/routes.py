"""The routes of `/v1/responses`: decode, call, encode."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.commands import refuse_fields
from periscope.api.disconnect import while_connected
from periscope.api.errors import UnsupportedParameter
from periscope.api.feed import collect
from periscope.api.json_reading import read_json
from periscope.api.openapi import documented
from periscope.api.openapi.places import shapes
from periscope.api.record import record_of
from periscope.api.replies import GET, JSONReply
from periscope.api.responses.answering import Answering
from periscope.api.responses.decode import decode, decode_prompt
from periscope.api.responses.encode import EventEncoder, encode_count, encode_response
from periscope.api.responses.listing import PAGE_QUERY, listed, page_of, refuse_streaming
from periscope.api.responses.schema import PromptWire, ResponsesWire
from periscope.api.responses.stored import StoredResponses
from periscope.api.routing import APIRouter
from periscope.api.sse import EventStream
from periscope.api.wording import clip

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend, ToolServers
    from periscope.api.settings import ApiSettings
    from periscope.turns import TurnStore

_PREFIX: Final = "/v1/responses"


def responses_router(
    backend: ChatBackend, settings: ApiSettings, turns: TurnStore, servers: ToolServers | None
) -> APIRouter:
    """The routes of `/v1/responses`: to answer a conversation, and to read and delete kept responses."""
    router = APIRouter()
    stored = StoredResponses(turns, max_bytes=settings.max_body_bytes)
    router.include_router(_answers(Answering(backend, settings, stored, servers), settings))
    router.include_router(_kept(stored))
    return router


def _answers(answering: Answering, settings: ApiSettings) -> APIRouter:
    router = APIRouter(_PREFIX)

    @router.post(
        "",
        **documented(
            "Responses",
            "Answers a conversation.",
            shapes.Response,
            body=ResponsesWire,
            example={"input": "Hello!", "max_output_tokens": 16, "store": False},
            events="OpenAI's events of a response, from `response.created` to `response.completed`.",
        ),
    )
    async def create_response(request: Request) -> Response:
        record = record_of(request.scope)
        asked = await read_json(request, settings.max_text_bytes, partial(decode, request_id=record.id_as("resp_")))
        record.model, is_stream = asked.wire.model or "", bool(asked.wire.stream)
        events, reply = await answering.answer(asked)
        del asked  # it holds the images as they were sent, which the backend frees once they are captioned
        if is_stream:
            return EventStream(events, EventEncoder(reply), settings)
        collected = await while_connected(collect(events), request.receive)
        return JSONReply(encode_response(collected, reply))

    @router.post(
        "/input_tokens",
        **documented(
            "Responses",
            "The number of tokens of a conversation.",
            shapes.InputTokens,
            body=PromptWire,
            example={"input": "Hello!"},
        ),
    )
    async def count_input_tokens(request: Request) -> Response:
        record = record_of(request.scope)
        decode_counted = partial(decode_prompt, request_id=record.id_as("count_"))
        asked = await read_json(request, settings.max_text_bytes, decode_counted)
        record.model = asked.wire.model or ""
        events = await answering.count(asked)
        del asked  # as above
        return JSONReply(encode_count(await while_connected(collect(events), request.receive)))

    return router


def _kept(stored: StoredResponses) -> APIRouter:
    router = APIRouter(_PREFIX)

    @router.api_route(
        "/{response_id}", methods=GET, **documented("Responses", "A response that is kept.", shapes.Response)
    )
    async def retrieve_response(response_id: str, request: Request) -> Response:
        refuse_streaming(request)
        return JSONReply(await stored.response(response_id))

    @router.delete("/{response_id}", **documented("Responses", "Drops a response.", shapes.DeletedResponse))
    async def delete_response(response_id: str) -> Response:
        await stored.delete(response_id)
        return JSONReply({"id": response_id, "object": "response", "deleted": True})

    @router.api_route(
        "/{response_id}/input_items",
        methods=GET,
        **documented("Responses", "What a kept response has answered.", shapes.ItemList, query=PAGE_QUERY),
    )
    async def list_input_items(response_id: str, request: Request) -> Response:
        page = page_of(request)
        return JSONReply(listed(await stored.input_items(response_id), page))

    @router.post(
        "/{response_id}/cancel", **documented("Responses", "Refused: none is made in the background.", status=None)
    )
    async def cancel_response(response_id: str, request: Request) -> Response:
        await refuse_fields(request)
        await stored.response(response_id)
        raise UnsupportedParameter(
            "Only responses that are made in the background can be cancelled, and this server makes none. Close the "
            f"connection of a response that is being made, or send POST /api/requests/{clip(response_id)}/cancel.",
            param="response_id",
        )

    return router
