"""The text reader protocol, and its result: text with its place in the image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from periscope.core import Image


@dataclass(frozen=True, slots=True)
class TextBox:
    """A run of text in one line of a picture, and the upright box around it.

    Attributes:
        left, top, right, bottom: in pixels of the picture that was read, from its upper left corner.
    """

    text: str
    left: float
    top: float
    right: float
    bottom: float

    @property
    def height(self) -> float:
        """The height of the box in pixels."""
        return self.bottom - self.top


class TextReader(Protocol):
    """Reads the text in pictures. `read` blocks, so it runs in an executor thread; one call at a time."""

    @property
    def name(self) -> str:
        """The source of the text as the text model sees it."""
        ...

    @property
    def revision(self) -> str:
        """Everything else that the text depends on: engine, model, languages. Part of the cache key."""
        ...

    def read(self, image: Image) -> tuple[TextBox, ...]:
        """Runs of text in any order; none if there is no text.

        Raises:
            Exception: whatever the engine raises.
        """
        ...
