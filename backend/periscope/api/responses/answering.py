"""From a checked request to its events and the form of its answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import aclosing
from typing import TYPE_CHECKING, Final

from periscope.api.custom_tools import as_custom_call
from periscope.api.fields import log_unused
from periscope.api.model_names import name_of
from periscope.api.responses.decode import LOGPROBS
from periscope.api.responses.encode import ResponsesReply
from periscope.api.responses.output import OutputForm
from periscope.api.responses.sealed import ReasoningSeal
from periscope.api.responses.servers import RequestServers
from periscope.api.responses.truncation import fitted
from periscope.turns import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.api.backend import ChatBackend, ToolServers
    from periscope.api.responses.decode import Asked, Decoded, WireT
    from periscope.api.responses.schema import PromptWire, ResponsesWire
    from periscope.api.responses.stored import StoredResponses
    from periscope.api.responses.tools import NamedTools
    from periscope.api.settings import ApiSettings
    from periscope.core import AnswerEvent, GenerationRequest

_ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"


class Answering:
    """Owns the seal of the reasoning that clients carry. It is the same after a restart."""

    def __init__(
        self, backend: ChatBackend, settings: ApiSettings, stored: StoredResponses, servers: ToolServers | None
    ) -> None:
        self._backend = backend
        self._servers = servers
        self._stored = stored
        self._seal = ReasoningSeal(settings.reasoning_secret or secrets.token_hex())
        self._status_as_comments = settings.status_as_comments

    async def answer(self, asked: Asked[ResponsesWire]) -> tuple[AsyncGenerator[AnswerEvent, None], ResponsesReply]:
        """The events of the response, for which nothing is done before the first is asked for, and its form.

        Raises:
            RequestError: the request cannot be answered as it stands.
        """
        asked, decoded = await self._decoded(asked)
        servers = RequestServers(decoded.servers, self._servers)
        reply = self._reply(asked, decoded.tools, servers)
        events: AsyncGenerator[AnswerEvent, None]
        if decoded.answers_as is not None:
            events = as_custom_call(self._backend.stream(decoded.request), decoded.answers_as)
        else:
            events = self._events(decoded.request, servers, is_fitted=asked.wire.truncation == "auto")
        if reply.is_stored:
            events = self._stored.begun(Turn(asked.id, asked.wire.previous_response_id, asked.items), events)
        return events, reply

    async def count(self, asked: Asked[PromptWire]) -> AsyncGenerator[AnswerEvent, None]:
        """The one event of a request that only counts its prompt.

        Raises:
            RequestError: as `answer`.
        """
        asked, decoded = await self._decoded(asked)
        servers = RequestServers(decoded.servers, self._servers)
        async for _ in servers.listing():
            pass
        return self._backend.answer(*servers.applied(decoded.request))

    async def _decoded(self, asked: Asked[WireT]) -> tuple[Asked[WireT], Decoded]:
        asked, earlier = await self._stored.resolved(asked)
        known = () if self._servers is None else self._servers.names
        decoded = await asyncio.to_thread(asked.request, self._seal, earlier, known)
        log_unused(decoded.unused, asked.id)
        return asked, decoded

    async def _events(
        self, request: GenerationRequest, servers: RequestServers, *, is_fitted: bool
    ) -> AsyncGenerator[AnswerEvent, None]:
        """The tools of MCP servers are listed, then the model is asked."""
        async with aclosing(servers.listing()) as listing:
            async for event in listing:
                yield event
        request, tools = servers.applied(request)
        answering = fitted(self._backend, request, tools) if is_fitted else self._backend.answer(request, tools)
        del request  # it holds the images as they were sent, which the backend frees once they are captioned
        async with aclosing(answering) as events:
            async for answered in events:
                yield answered

    def _reply(self, asked: Asked[ResponsesWire], tools: NamedTools, servers: RequestServers) -> ResponsesReply:
        wire, include = asked.wire, asked.wire.include or ()
        reasoning = wire.reasoning
        return ResponsesReply(
            id=asked.id,
            model=name_of(wire.model or "", self._backend.default_model),
            created_at=int(time.time()),
            asked=wire.model_copy(update={"input": None}),  # the images are freed while it is answered
            form=OutputForm(
                tools=tools,
                server_tools=servers.names,
                has_summary=reasoning is not None and bool(reasoning.summary or reasoning.generate_summary),
                seal=self._seal if _ENCRYPTED_REASONING in include else None,
                has_logprobs=LOGPROBS in include or bool(wire.top_logprobs),
                is_single_tool_call=wire.parallel_tool_calls is False,
            ),
            left_out=tools.left_out,
            is_stored=self._stored.takes(asked),
            keep=self._stored.finish,
            status_as_comments=self._status_as_comments,
        )
