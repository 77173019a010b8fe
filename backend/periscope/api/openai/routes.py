"""OpenAI's routes: decode, call, encode."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.custom_tools import as_custom_call
from periscope.api.disconnect import while_connected
from periscope.api.feed import collect
from periscope.api.fields import log_unused
from periscope.api.json_reading import read_json
from periscope.api.model_names import name_of
from periscope.api.openai import completion_encode, completions
from periscope.api.openai.chat import decode
from periscope.api.openai.chat_reply import chat_reply
from periscope.api.openai.completion_encode import CompletionChunkEncoder, CompletionReply
from periscope.api.openai.encode import ChunkEncoder, encode_completion
from periscope.api.openai.schema import ChatCompletionWire, CompletionWire
from periscope.api.openapi import documented
from periscope.api.openapi.places import shapes
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.routing import APIRouter
from periscope.api.sse import EventStream

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend
    from periscope.api.openai.completions import CompletionCall
    from periscope.api.settings import ApiSettings


def openai_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """Chat completions, and completions of texts."""
    router = APIRouter(prefix="/v1")

    @router.post(
        "/chat/completions",
        **documented(
            "OpenAI",
            "Answers a conversation.",
            shapes.ChatCompletion,
            body=ChatCompletionWire,
            example={"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 16},
            events="`data:` lines of `chat.completion.chunk` objects, then `[DONE]`; an error is an error object.",
        ),
    )
    async def create_chat_completion(request: Request) -> Response:
        record = record_of(request.scope)
        decode_call = partial(decode, request_id=record.id_as("chatcmpl-"))
        call = await read_json(request, settings.max_text_bytes, decode_call)
        record.model = call.request.model
        log_unused(call.unused, record.id)
        reply = chat_reply(call, name_of(call.request.model, backend.default_model), settings)
        is_stream = call.is_stream
        events = backend.stream(call.request)
        if call.answers_as is not None:
            events = as_custom_call(events, call.answers_as)
        del call  # it holds the images as they were sent, which the backend frees once they are captioned
        if is_stream:
            return EventStream(events, ChunkEncoder(reply), settings)
        collected = await while_connected(collect(events), request.receive)
        return JSONReply(encode_completion(collected, reply))

    @router.post(
        "/completions",
        **documented(
            "OpenAI",
            "Goes on with texts or token ids.",
            shapes.TextCompletion,
            body=CompletionWire,
            example={"prompt": "Once upon a time", "max_tokens": 16},
            events="`data:` lines of `text_completion` objects, then `[DONE]`.",
        ),
    )
    async def create_completion(request: Request) -> Response:
        record = record_of(request.scope)
        decode_call = partial(completions.decode, request_id=record.id_as("cmpl-"))
        call = await read_json(request, settings.max_text_bytes, decode_call)
        record.model = call.request.model
        log_unused(call.unused, record.id)
        reply = _completion_reply(call, backend, settings)
        events = backend.stream(call.request)
        if call.is_stream:
            return EventStream(events, CompletionChunkEncoder(reply), settings)
        collected = await while_connected(collect(events), request.receive)
        # Off the loop: the log-probabilities of long prompts are megabytes of JSON.
        return await asyncio.to_thread(lambda: JSONReply(completion_encode.encode_completion(collected, reply)))

    return router


def _completion_reply(call: CompletionCall, backend: ChatBackend, settings: ApiSettings) -> CompletionReply:
    return CompletionReply(
        id=call.request.id,
        model=name_of(call.request.model, backend.default_model),
        created=int(time.time()),
        has_usage=call.has_usage or settings.always_include_usage,
        status_as_comments=settings.status_as_comments,
    )
