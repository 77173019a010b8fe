"""Conversations: roles, parts, messages, pictures."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias


class Role(StrEnum):
    """Who speaks. A client's `developer` role is decoded as `SYSTEM`."""

    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


@dataclass(frozen=True, slots=True)
class TextPart:
    """A run of text inside a message.

    Attributes:
        is_data: somebody else's words (a caption): what looks like a chat template's control token in it is not one.
    """

    text: str
    is_data: bool = False


@dataclass(frozen=True, slots=True)
class ImagePart:
    """An image as the client referred to it; nothing is fetched or decoded yet.

    Attributes:
        url: a `data:` URL, or whatever else the client sent.
        param: where it stands in the request, for errors (`messages[0].content[1]`).
    """

    url: str = field(repr=False)
    param: str


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file as the client sent it; nothing is decoded yet. One of `url`, `text` and `missing` is set.

    Attributes:
        param: where it stands in the request, for errors (`messages[0].content[1]`).
        name: what the client calls it; "" if it does not say.
        url: a `data:` URL.
        text: all of it, where the client sent words instead of a file.
        missing: why its content is not in the request, and the fix; for the client.
        is_video: the client says that it is one, where its content cannot tell.
    """

    param: str
    name: str = ""
    url: str | None = field(default=None, repr=False)
    text: str | None = field(default=None, repr=False)
    missing: str | None = None
    is_video: bool = False


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded picture: RGB, 8 bits a channel, upright, alpha flattened over white, at most the pixel cap.

    In a message only where the model that answers sees by itself.

    Attributes:
        rgb: `width * height * 3` bytes, row by row.
        width, height: of `rgb`, in pixels.
        source_width, source_height: of the picture the client sent, upright, before any downscale.
        sha256: hex digest of the bytes the client sent (not of `rgb`).
    """

    rgb: bytes = field(repr=False)
    width: int
    height: int
    source_width: int
    source_height: int
    sha256: str


Part: TypeAlias = TextPart | ImagePart | FilePart | Image


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call the model asked for. `arguments` is the JSON text as the model wrote it (an object)."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One turn's message. `tool_calls` only on assistant messages, `tool_call_id` only on tool messages."""

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    reasoning: str | None = None

    @property
    def text(self) -> str:
        """The text parts joined with newlines; images and documents are left out."""
        return "\n".join(part.text for part in self.parts if isinstance(part, TextPart))

    @property
    def images(self) -> tuple[ImagePart, ...]:
        """The image parts in order."""
        return tuple(part for part in self.parts if isinstance(part, ImagePart))

    @property
    def files(self) -> tuple[FilePart, ...]:
        """The documents in order."""
        return tuple(part for part in self.parts if isinstance(part, FilePart))
