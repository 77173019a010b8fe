"""HTTP only: wire dialects in front of one `ChatBackend`. Knows nothing of MLX, pools or images; opens no socket.

Public: `create_app`, `ApiSettings`, `AccessKeys`, and the protocols `ChatBackend`, `ControlBackend`, `Health`,
`McpBackend` and `MetricsBackend`, which `serving`, `mcp_server` and `telemetry` implement.
"""

from __future__ import annotations

from periscope.api.access_keys import AccessKeys
from periscope.api.app import create_app
from periscope.api.backend import ChatBackend, ControlBackend, Health, McpBackend, MetricsBackend
from periscope.api.settings import ApiSettings

__all__ = [
    "AccessKeys",
    "ApiSettings",
    "ChatBackend",
    "ControlBackend",
    "Health",
    "McpBackend",
    "MetricsBackend",
    "create_app",
]
