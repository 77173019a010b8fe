"""What stands beside one request that came over HTTP, and is not part of the message that the SDK reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from periscope.core import McpProgress

#: Of the ASGI scope that the SDK hands on to the tools.
_KEY: Final = "periscope.exchange"


class Exchange:
    """Owns the image of one request until a tool takes it, so that nothing else keeps its megabytes.

    Args:
        image: as the client sent it; None if it sent none.
        tell: told how the call goes on.
    """

    def __init__(self, image: str | None, tell: Callable[[McpProgress], None]) -> None:
        self._image = image
        self.tell: Final = tell

    def take_image(self) -> str:
        """The image, which is given away once."""
        image, self._image = self._image, None
        return image or ""

    @property
    def scope(self) -> Mapping[str, Any]:
        """An entry for the ASGI scope."""
        return {_KEY: self}


def exchange_of(request: Any) -> Exchange | None:
    """The exchange of the SDK's HTTP request; None over stdin and stdout, where there is no such request."""
    found = getattr(request, "scope", {}).get(_KEY)
    return found if isinstance(found, Exchange) else None
