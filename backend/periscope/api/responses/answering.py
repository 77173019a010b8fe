"""From a checked request to its events and the form of its answer."""

from __future__ import annotations

import asyncio
import secrets
import time
from typing import TYPE_CHECKING, Final

from periscope.api.custom_tools import as_custom_call
from periscope.api.fields import log_unused
from periscope.api.model_names import name_of
from periscope.api.responses.decode import LOGPROBS
from periscope.api.responses.encode import ResponsesReply
from periscope.api.responses.output import OutputForm
from periscope.api.responses.sealed import ReasoningSeal
from periscope.api.responses.truncation import fitted
from periscope.turns import Turn

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.api.backend import ChatBackend
    from periscope.api.responses.decode import Asked, Decoded, WireT
    from periscope.api.responses.schema import PromptWire, ResponsesWire
    from periscope.api.responses.stored import StoredResponses
    from periscope.api.responses.tools import NamedTools
    from periscope.api.settings import ApiSettings
    from periscope.core import GenerationRequest, OutputEvent

_ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"


class Answering:
    """Owns the seal of the reasoning that clients carry. It is the same after a restart."""

    def __init__(self, backend: ChatBackend, settings: ApiSettings, stored: StoredResponses) -> None:
        self._backend = backend
        self._stored = stored
        self._seal = ReasoningSeal(settings.reasoning_secret or secrets.token_hex())
        self._status_as_comments = settings.status_as_comments

    async def answer(self, asked: Asked[ResponsesWire]) -> tuple[AsyncGenerator[OutputEvent, None], ResponsesReply]:
        """The events of the response, for which nothing is done before the first is asked for, and its form.

        Raises:
            RequestError: the request cannot be answered as it stands.
        """
        asked, decoded = await self._decoded(asked)
        reply = self._reply(asked, decoded.tools)
        events = self._events(decoded.request, asked.wire)
        if decoded.answers_as is not None:
            events = as_custom_call(events, decoded.answers_as)
        if reply.is_stored:
            events = self._stored.begun(Turn(asked.id, asked.wire.previous_response_id, asked.items), events)
        return events, reply

    async def count(self, asked: Asked[PromptWire]) -> AsyncGenerator[OutputEvent, None]:
        """The one event of a request that only counts its prompt.

        Raises:
            RequestError: as `answer`.
        """
        asked, decoded = await self._decoded(asked)
        return self._events(decoded.request, asked.wire)

    async def _decoded(self, asked: Asked[WireT]) -> tuple[Asked[WireT], Decoded]:
        asked, earlier = await self._stored.resolved(asked)
        decoded = await asyncio.to_thread(asked.request, self._seal, earlier)
        log_unused(decoded.unused, asked.id)
        return asked, decoded

    def _events(self, request: GenerationRequest, wire: PromptWire) -> AsyncGenerator[OutputEvent, None]:
        if wire.truncation == "auto" and not request.counts_only:
            return fitted(self._backend, request)
        return self._backend.stream(request)

    def _reply(self, asked: Asked[ResponsesWire], tools: NamedTools) -> ResponsesReply:
        wire, include = asked.wire, asked.wire.include or ()
        reasoning = wire.reasoning
        return ResponsesReply(
            id=asked.id,
            model=name_of(wire.model or "", self._backend.models()),
            created_at=int(time.time()),
            asked=wire.model_copy(update={"input": None}),  # the images are freed while it is answered
            form=OutputForm(
                tools=tools,
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
