"""HTTP only: wire dialects in front of one `ChatBackend`. Knows nothing of MLX, pools or images; opens no socket.

Public: `create_app`, `ApiSettings`, `AccessKeys`, and the protocols `ChatBackend`, `ControlBackend`, `Health` and
`MetricsBackend`, which `serving` and `telemetry` implement.
"""

from __future__ import annotations

from periscope.api.access_keys import AccessKeys
from periscope.api.app import create_app
from periscope.api.backend import ChatBackend, ControlBackend, Health, MetricsBackend
from periscope.api.settings import ApiSettings

__all__ = ["AccessKeys", "ApiSettings", "ChatBackend", "ControlBackend", "Health", "MetricsBackend", "create_app"]
