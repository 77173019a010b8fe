"""Whether a chat asks for its last answer to go on, in the words of vLLM, DeepSeek, Mistral and Moonshot. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from periscope.api.errors import UnsupportedParameter
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.openai.schema import ChatCompletionWire, MessageWire


def asks_to_continue(wire: ChatCompletionWire) -> bool:
    """Whether the answer goes on with the last message. Without any of the flags it is a new turn, as with OpenAI.

    Raises:
        InvalidRequest: the flags contradict each other, or stand in another message than the last one.
    """
    for i, message in enumerate(wire.messages[:-1]):
        if flag := _flag(message):
            raise InvalidRequest(
                f"`messages[{i}].{flag}` may only stand in the last message, with which the answer goes on.",
                param=f"messages[{i}].{flag}",
            )
    flag = "continue_final_message" if wire.continue_final_message else _flag(wire.messages[-1])
    if flag is None and wire.add_generation_prompt is False:
        raise UnsupportedParameter(
            "`add_generation_prompt: false` is not supported without `continue_final_message: true`: no turn would be "
            "open that the model could write.",
            param="add_generation_prompt",
        )
    if flag is not None and wire.add_generation_prompt:
        raise InvalidRequest(
            f"`add_generation_prompt` opens a new turn, and `{flag}` goes on with the last one: leave one of them out.",
            param="add_generation_prompt",
        )
    return flag is not None


def _flag(message: MessageWire) -> str | None:
    """The field that says that the answer goes on with this message."""
    return "prefix" if message.prefix else "partial" if message.partial else None
