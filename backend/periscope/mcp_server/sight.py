"""What the tools ask of a Periscope, wherever it runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from periscope.core import CaptionedImage, ImagePart, OutputEvent


class Sight(Protocol):
    """A running server, or models of this process. All methods raise `PeriscopeError` with words for a person."""

    async def caption(self, image: ImagePart) -> CaptionedImage:
        """The captioner's words about an image, and the text that stands in it."""
        ...

    async def read(self, image: ImagePart) -> CaptionedImage:
        """The text that stands in an image, as its `verbatim`, or why it could not be read, as its `error`."""
        ...

    def ask(self, image: ImagePart, question: str) -> AsyncGenerator[OutputEvent, None]:
        """The text model's answer to a question about an image, as events; `Finished` last."""
        ...

    async def loading(self) -> str | None:
        """Which models are being loaded and how far, in a few words; None if none is."""
        ...
