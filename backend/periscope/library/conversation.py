"""What a program asks, as messages. Blocks while pictures are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final, TypeAlias, cast

from periscope.api.call_ids import pair_calls
from periscope.api.openai.chat import decode
from periscope.core import Message, Part, Role, TextPart
from periscope.errors import InvalidRequest
from periscope.library.pictures import Picture, picture
from periscope.library.plain import plain

#: A text of the user, or a conversation: as `Message`s, or in the shape of OpenAI's chat messages.
Conversation: TypeAlias = str | Sequence[Message] | Sequence[Mapping[str, Any]]
_CONVERSATION: Final = "a question, a list of `Message`s, or a list of dicts as OpenAI's chat messages"


def messages_of(conversation: Conversation, images: Sequence[Picture] = ()) -> tuple[Message, ...]:
    """The conversation as messages, with the images before the text of its last message of the user.

    Raises:
        InvalidRequest: a message cannot be read, or there is none of the user for the images; names the field.
        ImageInvalid: a file cannot be read.
    """
    messages = _read(conversation)
    if not images:
        return messages
    if isinstance(images, (str, bytes)) or not isinstance(images, Sequence):
        raise _wrong("images", images, "a list of pictures, such as `images=[picture]`")
    last = next((i for i in reversed(range(len(messages))) if messages[i].role is Role.USER), None)
    if last is None:
        raise InvalidRequest("`images` belong to a message of the user, and there is none.", param="images")
    pictures = tuple(picture(image, f"images[{i}]") for i, image in enumerate(images))
    shown = replace(messages[last], parts=(*pictures, *messages[last].parts))
    return (*messages[:last], shown, *messages[last + 1 :])


def _read(conversation: Conversation) -> tuple[Message, ...]:
    if isinstance(conversation, str):
        return (Message(Role.USER, (TextPart(plain(conversation)),)),)
    if isinstance(conversation, (bytes, Mapping)) or not isinstance(conversation, Iterable):
        raise _wrong("messages", conversation, _CONVERSATION)
    messages = list(conversation)
    num_ours = sum(isinstance(message, Message) for message in messages)
    if not num_ours:
        return decode({"messages": plain(messages)}, "").request.messages
    if num_ours < len(messages):
        raise InvalidRequest(f"`messages` has `Message`s and others. It must be {_CONVERSATION}.", param="messages")
    return pair_calls([_checked(message, i) for i, message in enumerate(cast("list[Message]", messages))])


def _wrong(param: str, value: object, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"`{param}` is a {type(value).__name__}. It must be {wanted}.", param=param)


def _checked(message: Message, index: int) -> Message:
    """The message in whole characters, if its parts are parts."""
    if not isinstance(message.role, Role):
        raise _wrong(f"messages[{index}].role", message.role, "a `Role`, such as `Role.USER`")
    if not isinstance(message.parts, (tuple, list)):
        raise _wrong(f"messages[{index}].parts", message.parts, "a tuple of parts, such as `(TextPart(...),)`")
    for j, part in enumerate(message.parts):
        if not isinstance(part, Part):
            raise _wrong(f"messages[{index}].parts[{j}]", part, "a part: a `TextPart`, or what `picture` gives")
    parts = tuple(
        replace(part, text=plain(part.text)) if isinstance(part, TextPart) else part for part in message.parts
    )
    return replace(message, parts=parts)
