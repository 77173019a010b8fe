"""The settings of the API, which the composition root fills from the configuration."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ApiSettings:
    """Settings of one app.

    Attributes:
        cors_origins: patterns of origins (`http://localhost:3000`, `http://localhost:*`, or `*`) whose pages may call
            and read; those of desktop apps always may.
        allowed_hosts: host names or addresses that are accepted besides loopback ones; `*` = any.
        heartbeat_s: longest silence of a stream.
        commit_grace_s: how long a stream's status line may wait, so that an early error still gets its own
            status; never more than `heartbeat_s`.
        max_body_bytes: of one request. The default holds eight images of 20 MiB in base64, and text.
        max_body_bytes_in_flight: of all requests whose bodies are being read; those up to 1 MiB are not counted.
        max_text_bytes: of one request, without images in base64.
        receive_timeout_s: how long a client may keep the server waiting for the rest of its request.
        min_receive_rate: bytes a second that earn a slow client more time; see `ByteRate`.
        max_requests_per_client: that one client has open at once.
        always_include_usage: streams end with the usage chunk even if the client did not ask for it.
        status_as_comments: heartbeats and wait states are SSE comments, not chunks with an empty delta. Off, since
            Codex and Pi give up on streams that hold nothing but comments (openai/codex#31539, omlx#2537).
        anthropic_model: answers requests to `/v1/messages` for models called `claude...`; None = the default model.
        has_mcp_endpoint: `/mcp` is wanted; it also needs the SDK of MCP.
        reasoning_secret: seals the reasoning that clients of `/v1/responses` carry; None = a new one at each start.
    """

    cors_origins: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    heartbeat_s: float = 10.0
    commit_grace_s: float = 1.0
    max_body_bytes: int = 224 * 1024 * 1024
    max_body_bytes_in_flight: int = 448 * 1024 * 1024
    max_text_bytes: int = 8 * 1024 * 1024
    receive_timeout_s: float = 10.0
    min_receive_rate: int = 4096
    max_requests_per_client: int = 128
    always_include_usage: bool = False
    status_as_comments: bool = False
    anthropic_model: str | None = None
    has_mcp_endpoint: bool = True
    reasoning_secret: str | None = field(default=None, repr=False)
    version: str = ""
