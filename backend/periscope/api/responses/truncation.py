"""`truncation: auto`: the oldest turns are dropped until the prompt fits the context."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from periscope.core import AnswerEvent, GenerationRequest, Message, Role, TextPart, Waiting
from periscope.errors import ContextLengthExceeded
from periscope.serving.server_tools import ServerTools

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend

logger = logging.getLogger(__name__)

#: More is dropped than the share by which the prompt is too long: the answer needs room, and turns differ in length.
_MARGIN: Final = 0.1
#: What stands for an image or a file when the lengths of turns are compared: about the block that describes one.
_CHARS_OF_AN_IMAGE: Final = 2000


async def fitted(
    backend: ChatBackend, request: GenerationRequest, servers: ServerTools = ServerTools()
) -> AsyncGenerator[AnswerEvent, None]:
    """The events of the request, or of as much of its conversation as fits.

    The request is kept, images included, until it is known that the prompt fits.

    Raises:
        ContextLengthExceeded: the last turn alone does not fit.
        PeriscopeError: as the backend.
    """
    has_begun = False
    while True:
        try:
            async with aclosing(backend.answer(request, servers)) as events:
                async for event in events:
                    has_begun = has_begun or not isinstance(event, Waiting)
                    yield event
        except ContextLengthExceeded as error:
            if has_begun:
                raise
            too_long = 1 - error.context_length / error.num_prompt_tokens
            shorter = without_oldest(request.messages, too_long + _MARGIN)
            if shorter is None:
                raise
            num_dropped = len(request.messages) - len(shorter)
            logger.info(
                "dropped the oldest %d messages to fit the context", num_dropped, extra={"request_id": request.id}
            )
            request = replace(request, messages=shorter)
        else:
            return


def without_oldest(messages: Sequence[Message], share: float) -> tuple[Message, ...] | None:
    """Pure: the conversation without its oldest turns, as many as have this share of it, and one at least.

    A turn begins with a message of the user and includes the calls and results that follow, which only make sense
    together. System messages before the first turn stay. None if there is only one turn.
    """
    starts = [i for i, message in enumerate(messages) if message.role is Role.USER]
    if len(starts) < 2:
        return None
    lengths = [_length(message) for message in messages]
    goal = share * sum(lengths)
    kept_from = next((start for start in starts[1:] if sum(lengths[starts[0] : start]) >= goal), starts[-1])
    return (*messages[: starts[0]], *messages[kept_from:])


def _length(message: Message) -> int:
    parts = sum(len(part.text) if isinstance(part, TextPart) else _CHARS_OF_AN_IMAGE for part in message.parts)
    return 1 + parts + sum(len(call.arguments) for call in message.tool_calls) + len(message.reasoning or "")
