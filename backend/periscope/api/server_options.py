"""The answer to `OPTIONS *`, which asks whether the server is there and speaks HTTP, and not about a path."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class ServerOptions:
    """ASGI layer: answers `OPTIONS *` with 204, like the open paths without a key."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (scope["method"], scope["path"]) == ("OPTIONS", "*"):
            await Response(status_code=204)(scope, receive, send)
            return
        await self._app(scope, receive, send)
