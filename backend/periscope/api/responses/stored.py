"""Stored responses: what a request goes on from, and what becomes of one that is to be stored.

The store knows turns, not the API: their items are items of this dialect, as clients sent them and got them.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from periscope.api.wording import clip
from periscope.core import AnswerEvent, Finished, JSONObject
from periscope.errors import InvalidRequest, PreviousResponseNotFound, ResponseNotFound
from periscope.turns import Turn, TurnMissing, TurnsTooLarge, TurnStore

if TYPE_CHECKING:
    from periscope.api.responses.decode import Asked, WireT
    from periscope.api.responses.schema import ResponsesWire

logger = logging.getLogger(__name__)

_PREVIOUS: Final = "previous_response_id"


class StoredResponses:
    """What the routes ask of the store; it owns nothing of its own.

    Args:
        max_bytes: of all items that a request goes on from.
    """

    def __init__(self, store: TurnStore, *, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes

    async def resolved(self, asked: Asked[WireT]) -> tuple[Asked[WireT], list[JSONObject]]:
        """The request with the items that it only names, and the items of the responses that it goes on from.

        Raises:
            PreviousResponseNotFound: there is no such response, or one before it is gone.
            InvalidRequest: an item is not there, or the conversation is too large.
        """
        if asked.references:
            asked = asked.with_items(await self._store.items(asked.references))
        previous_id = asked.wire.previous_response_id
        return asked, [] if previous_id is None else await self._conversation(previous_id)

    async def _conversation(self, response_id: str) -> list[JSONObject]:
        try:
            return await self._store.conversation(response_id, self._max_bytes)
        except TurnMissing as missing:
            before = "" if missing.id == response_id else f", which `{_PREVIOUS}` goes on from,"
            raise PreviousResponseNotFound(
                f"The response {clip(missing.id)}{before} is not stored here. Responses are stored unless `store` is "
                "false, and dropped when they are not used for long. Send the whole conversation in `input`.",
                param=_PREVIOUS,
            ) from None
        except TurnsTooLarge as error:
            raise InvalidRequest(
                f"The conversation before this request has {error.num_bytes} bytes; at most {self._max_bytes} are "
                "taken. Send what matters of it in `input`.",
                param=_PREVIOUS,
            ) from None

    def takes(self, asked: Asked[ResponsesWire]) -> bool:
        """Whether the client wants the response stored, and the request is not too large for that."""
        if asked.wire.store is False:
            return False
        num_chars = sum(map(_num_chars, asked.items))
        if num_chars > self._store.max_turn_bytes:
            logger.warning(
                "the response is not stored: its request has %d characters, and the store takes %d of one",
                num_chars,
                self._store.max_turn_bytes,
                extra={"request_id": asked.id},
            )
            return False
        return True

    async def begun(self, turn: Turn, events: AsyncGenerator[AnswerEvent, None]) -> AsyncGenerator[AnswerEvent, None]:
        """The same events. What the client sent is on its way to the disk from the beginning, so that it can be freed.

        A response that fails, or whose client leaves, is not kept.
        """
        turn_id, is_finished = turn.id, False
        self._store.begin(turn)
        del turn
        try:
            async with aclosing(events):
                async for event in events:
                    is_finished = isinstance(event, Finished)
                    yield event
        finally:
            if not is_finished:
                self._store.drop(turn_id)

    def finish(self, response: JSONObject) -> None:
        """Keep a response that is complete."""
        answer = {key: value for key, value in response.items() if key != "output"}
        self._store.finish(Turn(response["id"], outputs=tuple(response["output"]), answer=answer))

    async def response(self, response_id: str) -> JSONObject:
        """The stored response, as it was answered.

        Raises:
            ResponseNotFound: it is not stored.
        """
        turn = await self._turn(response_id)
        return (turn.answer or {}) | {"output": list(turn.outputs)}

    async def input_items(self, response_id: str) -> list[JSONObject]:
        """All items that the model was given for this response, those of earlier responses included, in order.

        Clients page through them by id, so that each is there once, even if the client has sent it again.

        Raises:
            ResponseNotFound: it is not stored.
        """
        turn = await self._turn(response_id)
        earlier: list[JSONObject] = []
        if turn.previous_id is not None:
            try:
                earlier = await self._store.conversation(turn.previous_id, self._max_bytes)
            except (TurnMissing, TurnsTooLarge):
                logger.info("the responses before %s are not listed: they are gone or too large", response_id)
        by_id = {item["id"]: item for item in (*earlier, *turn.inputs)}
        return [as_listed(item) for item in by_id.values()]

    async def delete(self, response_id: str) -> None:
        """Delete one response from the store.

        Raises:
            ResponseNotFound: it is not stored.
        """
        if not await self._store.delete(response_id):
            raise _not_found(response_id)

    async def _turn(self, response_id: str) -> Turn:
        try:
            return await self._store.turn(response_id)
        except TurnMissing:
            raise _not_found(response_id) from None


def as_listed(item: JSONObject) -> JSONObject:
    """Pure: an input item as the API lists it: messages with their type, their status, and a list of parts."""
    if item.get("type", "message") != "message":
        return item
    content = item.get("content")
    if isinstance(content, str):
        kind = "output_text" if item.get("role") == "assistant" else "input_text"
        content = [{"type": kind, "text": content} | ({"annotations": []} if kind == "output_text" else {})]
    return {"type": "message", "status": "completed"} | item | {"content": content}


def _not_found(response_id: str) -> ResponseNotFound:
    return ResponseNotFound(
        f"The response {clip(response_id)} is not stored here. Responses are stored unless `store` is false, and "
        "dropped when they are not used for long.",
        param="response_id",
    )


def _num_chars(root: Any) -> int:
    """Characters of all texts in it, at any depth."""
    num_chars, pending = 0, [root]
    while pending:
        value = pending.pop()
        if isinstance(value, str):
            num_chars += len(value)
        elif isinstance(value, (dict, list)):
            pending += value.values() if isinstance(value, dict) else value
    return num_chars
