"""ServerTool: a tool that the server offers the text model by itself and runs inside the request. Protocols only."""

from __future__ import annotations

from typing import Protocol

from periscope.core import Tell, Tool


class ServerTool(Protocol):
    """One tool, for one request. Event loop only; one call at a time."""

    @property
    def tool(self) -> Tool:
        """As the model is offered it. Its name is none of the client's tools."""
        ...

    @property
    def max_calls(self) -> int:
        """Calls that are run for the request; further ones are answered with a refusal that the model reads."""
        ...

    async def call(self, arguments: str, tell: Tell) -> str:
        """The result that the model reads, which also says what is wrong with the call, or that it failed.

        Cancellable at any await.

        Args:
            arguments: as the model wrote them, so perhaps no JSON.
            tell: called with what the call waits for.

        Raises:
            PeriscopeError: the whole request ends with it.
        """
        ...
