"""Prefill: a conversation whose last message is an answer that the client has begun. Pure; of every dialect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.core import Role
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.core import Message


def with_open_answer(messages: Sequence[Message], param: str) -> tuple[tuple[Message, ...], bool]:
    """The conversation, and whether its last message goes on: one without a word is a new turn, and is left out.

    Args:
        param: the place of the last message in the request.

    Raises:
        InvalidRequest: the last message is not the assistant's, holds more than words, or is empty and the only one.
    """
    last = messages[-1]
    if last.role is not Role.ASSISTANT:
        raise InvalidRequest(
            f"`{param}` is a message of the {last.role}: an answer can only go on with one of the assistant.",
            param=param,
        )
    if last.tool_calls:
        raise InvalidRequest(
            f"`{param}` holds calls, which cannot go on: send their results, or leave the calls out.", param=param
        )
    if last.images or last.files:
        raise InvalidRequest(
            f"`{param}` holds images or files, but an answer is words: send them in a message of the user.", param=param
        )
    if last.text or last.reasoning:
        return tuple(messages), True
    if len(messages) == 1:
        raise InvalidRequest(f"`{param}` is empty, and there is no other message to answer.", param=param)
    return tuple(messages[:-1]), False
