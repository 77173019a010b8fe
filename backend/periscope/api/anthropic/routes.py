"""Anthropic's routes: decode, call, encode."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.anthropic.decode import decode, decode_prompt
from periscope.api.anthropic.encode import EventEncoder, MessageReply, encode_count, encode_message
from periscope.api.anthropic.models import model_for
from periscope.api.anthropic.schema import MessagesWire, PromptWire
from periscope.api.disconnect import while_connected
from periscope.api.feed import collect
from periscope.api.fields import log_unused
from periscope.api.json_reading import read_json
from periscope.api.model_names import name_of
from periscope.api.openapi import documented
from periscope.api.openapi.places import shapes
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.routing import APIRouter
from periscope.api.sse import EventStream

if TYPE_CHECKING:
    from periscope.api.anthropic.decode import MessagesCall
    from periscope.api.backend import ChatBackend
    from periscope.api.settings import ApiSettings
    from periscope.core import GenerationRequest


def anthropic_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """The routes of `/v1/messages`: to answer a conversation, and to count its tokens."""
    router = APIRouter(prefix="/v1/messages")

    @router.post(
        "",
        **documented(
            "Anthropic",
            "Answers a conversation.",
            shapes.AnthropicMessage,
            body=MessagesWire,
            example={"max_tokens": 16, "messages": [{"role": "user", "content": "Hello!"}]},
            events="Anthropic's events, from `message_start` to `message_stop`, with `ping` while nothing else comes.",
        ),
    )
    async def create_message(request: Request) -> Response:
        record = record_of(request.scope)
        call = await read_json(request, settings.max_text_bytes, partial(decode, request_id=record.id_as("msg_")))
        record.model = call.request.model
        log_unused(call.unused, record.id)
        reply, is_stream = _reply(call, backend, settings), call.is_stream
        answerable = _answerable(call.request, backend, settings)
        record.answered_by = answerable.model
        events = backend.stream(answerable)
        del call, answerable  # they hold the images as they were sent, which the backend frees once they are captioned
        if is_stream:
            return EventStream(events, EventEncoder(reply), settings)
        collected = await while_connected(collect(events), request.receive)
        return JSONReply(encode_message(collected, reply))

    @router.post(
        "/count_tokens",
        **documented(
            "Anthropic",
            "The number of tokens of a conversation.",
            shapes.CountedTokens,
            body=PromptWire,
            example={"messages": [{"role": "user", "content": "Hello!"}]},
        ),
    )
    async def count_tokens(request: Request) -> Response:
        record = record_of(request.scope)
        decode_counted = partial(decode_prompt, request_id=record.id_as("count_"))
        counted = await read_json(request, settings.max_text_bytes, decode_counted)
        record.model = counted.model
        answerable = _answerable(counted, backend, settings)
        record.answered_by = answerable.model
        events = backend.stream(answerable)
        del counted, answerable  # as above
        return JSONReply(encode_count(await while_connected(collect(events), request.receive)))

    return router


def _answerable(request: GenerationRequest, backend: ChatBackend, settings: ApiSettings) -> GenerationRequest:
    """The same request, to the model that answers for the one that the client named."""
    return replace(request, model=model_for(request.model, backend.models(), settings.anthropic_model))


def _reply(call: MessagesCall, backend: ChatBackend, settings: ApiSettings) -> MessageReply:
    return MessageReply(
        id=call.request.id,
        model=name_of(call.request.model, backend.default_model),
        shows_thinking=call.shows_thinking,
        left_out=call.left_out,
        is_single_tool_call=not call.request.output.tool_choice.is_parallel,
        status_as_comments=settings.status_as_comments,
    )
