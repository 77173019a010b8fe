"""Other servers, with Periscope as their client: one OpenAI-compatible client over one reader of server-sent events.

Answers come out as core's output events, failures as the `Remote...` errors. Nothing here knows the other rooms.
Names are imported on first use: a server that asks no other one needs no HTTP client.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from periscope.remote.captions import caption, describe_file, flush_captions, kept_captions
    from periscope.remote.chat_answers import ChatAnswer, ChatChoice
    from periscope.remote.control import (
        DownloadRow,
        LogLineRow,
        ModelRow,
        Snapshot,
        command,
        events,
        read_log,
        read_status,
    )
    from periscope.remote.endpoint import Endpoint, Timeouts, pinned_context
    from periscope.remote.openai_client import ListedModel, OpenAIClient
    from periscope.remote.pictures import FetchSettings, PictureFetcher

__all__ = [
    "ChatAnswer",
    "ChatChoice",
    "DownloadRow",
    "Endpoint",
    "FetchSettings",
    "ListedModel",
    "LogLineRow",
    "ModelRow",
    "OpenAIClient",
    "PictureFetcher",
    "Snapshot",
    "Timeouts",
    "caption",
    "command",
    "describe_file",
    "events",
    "flush_captions",
    "kept_captions",
    "pinned_context",
    "read_log",
    "read_status",
]
#: Where each of them is, in this package.
_HOMES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("caption", "describe_file", "flush_captions", "kept_captions"), "captions"),
    **dict.fromkeys(("ChatAnswer", "ChatChoice"), "chat_answers"),
    **dict.fromkeys(
        ("DownloadRow", "LogLineRow", "ModelRow", "Snapshot", "command", "events", "read_log", "read_status"), "control"
    ),
    **dict.fromkeys(("Endpoint", "Timeouts", "pinned_context"), "endpoint"),
    **dict.fromkeys(("OpenAIClient", "ListedModel"), "openai_client"),
    **dict.fromkeys(("FetchSettings", "PictureFetcher"), "pictures"),
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"periscope.remote.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'periscope.remote' has no attribute {name!r}")
