"""What the routes of `/v1/responses` do: decode, call, encode."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from periscope.api.disconnect import while_connected
from periscope.api.feed import collect
from periscope.api.json_reading import read_json
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.responses.answering import Answering
from periscope.api.responses.decode import decode, decode_prompt
from periscope.api.responses.encode import EventEncoder, encode_count, encode_response
from periscope.api.responses.listing import listed, page_of
from periscope.api.responses.stored import StoredResponses
from periscope.api.sse import EventStream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from periscope.api.backend import ChatBackend, ToolServers
    from periscope.api.settings import ApiSettings
    from periscope.turns import TurnStore


class ResponsesEndpoints:
    """Owns no state but the seal of reasoning, by `Answering`. One for all requests; event loop only."""

    def __init__(
        self, backend: ChatBackend, settings: ApiSettings, turns: TurnStore, servers: ToolServers | None
    ) -> None:
        self._settings = settings
        self.stored = StoredResponses(turns, max_bytes=settings.max_body_bytes)
        self._answering = Answering(backend, settings, self.stored, servers)

    async def create(self, request: Request) -> Response:
        """Answer a conversation, at once or in a stream."""
        record = record_of(request.scope)
        decode_asked = partial(decode, request_id=record.id_as("resp_"))
        asked = await read_json(request, self._settings.max_text_bytes, decode_asked)
        record.model, is_stream = asked.wire.model or "", bool(asked.wire.stream)
        events, reply = await self._answering.answer(asked)
        del asked  # it holds the images as they were sent, which the backend frees once they are captioned
        if is_stream:
            return EventStream(events, EventEncoder(reply), self._settings)
        collected = await while_connected(collect(events), request.receive)
        return JSONReply(encode_response(collected, reply))

    async def count(self, request: Request) -> Response:
        """The number of tokens of a conversation."""
        record = record_of(request.scope)
        decode_counted = partial(decode_prompt, request_id=record.id_as("count_"))
        asked = await read_json(request, self._settings.max_text_bytes, decode_counted)
        record.model = asked.wire.model or ""
        events = await self._answering.count(asked)
        del asked  # as above
        return JSONReply(encode_count(await while_connected(collect(events), request.receive)))

    async def input_items(self, response_id: str, request: Request) -> Response:
        """A page of what a kept response has answered."""
        page = page_of(request)
        return JSONReply(listed(await self.stored.input_items(response_id), page))
