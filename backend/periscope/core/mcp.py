"""What passes between the HTTP side and the tools for agents, when one calls them over HTTP."""

from __future__ import annotations

from dataclasses import dataclass

from periscope.core.tools import JSONObject


@dataclass(frozen=True, slots=True)
class McpRequest:
    """One JSON-RPC request of an agent.

    Attributes:
        message: the request, with a stand-in for its image. Owned by whoever answers it.
        image: `params.arguments.image`; None if the request has none.
        headers: those of the protocol: lower-case name, which begins with `mcp-`, and value.
    """

    message: JSONObject
    image: str | None = None
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class McpProgress:
    """A call goes on.

    Attributes:
        elapsed_s: since the work has begun.
        message: what is waited for, in a few words.
    """

    elapsed_s: float
    message: str


@dataclass(frozen=True, slots=True)
class McpReply:
    """The answer to a request: an HTTP status, and the JSON-RPC response or error, as JSON."""

    status: int
    body: bytes
