"""What a program asks, as messages. Blocks while pictures are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias, cast

from periscope.api.call_ids import pair_calls
from periscope.api.openai.chat import decode
from periscope.core import Message, Part, Role, TextPart
from periscope.errors import InvalidRequest
from periscope.library.pictures import Picture, picture
from periscope.library.plain import plain

#: A text of the user, or a conversation: as `Message`s, or in the shape of OpenAI's chat messages.
Conversation: TypeAlias = str | Sequence[Message] | Sequence[Mapping[str, Any]]


def messages_of(conversation: Conversation, images: Sequence[Picture] = ()) -> tuple[Message, ...]:
    """The conversation as messages, with the images before the text of its last message of the user.

    Raises:
        InvalidRequest: a message cannot be read, or there is none of the user for the images; names the field.
        ImageInvalid: a file cannot be read.
    """
    messages = _read(conversation)
    if not images:
        return messages
    last = next((i for i in reversed(range(len(messages))) if messages[i].role is Role.USER), None)
    if last is None:
        raise InvalidRequest("`images` belong to a message of the user, and there is none.", param="images")
    pictures = tuple(picture(image, f"images[{i}]") for i, image in enumerate(images))
    shown = replace(messages[last], parts=(*pictures, *messages[last].parts))
    return (*messages[:last], shown, *messages[last + 1 :])


def _read(conversation: Conversation) -> tuple[Message, ...]:
    if isinstance(conversation, str):
        return (Message(Role.USER, (TextPart(plain(conversation)),)),)
    messages = list(conversation)
    if messages and all(isinstance(message, Message) for message in messages):
        return pair_calls([_checked(message, i) for i, message in enumerate(cast("list[Message]", messages))])
    return decode({"messages": plain(messages)}, "").request.messages


def _checked(message: Message, index: int) -> Message:
    """The message in whole characters, if its parts are parts."""
    for j, part in enumerate(message.parts):
        if not isinstance(part, Part):
            param = f"messages[{index}].parts[{j}]"
            raise InvalidRequest(
                f"`{param}` is a {type(part).__name__}. It must be a part: a `TextPart`, or what `picture` gives.",
                param=param,
            )
    parts = tuple(
        replace(part, text=plain(part.text)) if isinstance(part, TextPart) else part for part in message.parts
    )
    return replace(message, parts=parts)
