"""`POST /mcp`: the tools for agents, by MCP's streamable HTTP.

There are no streams that the server opens of itself, because it has nothing to say outside of an answer: `GET` is a
405, by which MCP says so, and no connection of an idle agent is held. Sessions cannot be ended, because nothing is
kept of them (`McpCalls`): `DELETE` is a 405, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from uuid import uuid4

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.json_reading import read_json
from periscope.api.mcp.calls import McpCalls
from periscope.api.mcp.decode import McpCall, McpCancellation, McpMessage, decode_message
from periscope.api.mcp.stream import McpStream
from periscope.api.openapi import documented
from periscope.api.openapi.places import own_shapes
from periscope.api.record import record_of
from periscope.api.routing import APIRouter
from periscope.core import McpRequest
from periscope.errors import RouteNotFound

if TYPE_CHECKING:
    from periscope.api.backend import McpBackend
    from periscope.api.settings import ApiSettings

_SESSION: Final = "mcp-session-id"
_MAX_SESSION: Final = 128
_EXAMPLE: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
_OFF: Final = "There is no MCP endpoint here: `server.mcp_endpoint.enabled` is false in models.yaml."
_NO_SDK: Final = "The MCP endpoint needs the SDK of MCP: pip install 'mlx-periscope[mcp]', and restart the server."


def mcp_router(tools: McpBackend | None, settings: ApiSettings) -> APIRouter:
    """The route. `tools`: None = it is switched off, or the SDK of MCP is not installed."""
    router, calls = APIRouter(), McpCalls()

    @router.post(
        "/mcp",
        **documented(
            "MCP",
            "Tools for agents whose own model is blind: describe_image, read_text, ask_about_image.",
            own_shapes.JSONRPCReply,
            body=McpMessage,
            example=_EXAMPLE,
            events="JSON-RPC messages, the answer last.",
            accepted="A notification, or an answer, which are taken without one.",
        ),
    )
    async def take_message(request: Request) -> Response:
        if tools is None:
            raise RouteNotFound(_NO_SDK if settings.has_mcp_endpoint else _OFF)
        asked = await read_json(request, settings.max_text_bytes, decode_message)
        record = record_of(request.scope)
        session = request.headers.get(_SESSION, "")[:_MAX_SESSION]
        if isinstance(asked, McpCancellation):
            calls.cancel((record.key, session, asked.id))
        if not isinstance(asked, McpCall):
            return Response(status_code=202)
        if asked.method == "tools/call":
            record.model = ""
        events = tools.answer(McpRequest(asked.message, asked.image, _protocol_headers(request)))
        if session:
            events = calls.named((record.key, session, asked.id), events)
        return McpStream(
            asked,
            events,
            settings,
            headers={_SESSION: uuid4().hex} if asked.method == "initialize" else {},
            takes_events=_takes_events(request.headers.get("accept", "")),
        )

    return router


def _protocol_headers(request: Request) -> tuple[tuple[bytes, bytes], ...]:
    return tuple((name, value) for name, value in request.scope["headers"] if name.startswith(b"mcp-"))


def _takes_events(accept: str) -> bool:
    """Pure: whether this header, of a client that speaks MCP or of curl, allows events."""
    return any(kind in accept for kind in ("text/event-stream", "text/*"))
