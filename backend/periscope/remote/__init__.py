"""Other servers, with Periscope as their client: one OpenAI-compatible client over one reader of server-sent events.

Answers come out as core's output events, failures as the `Remote...` errors. Nothing here knows the other rooms.
"""

from periscope.remote.captions import caption, describe_file, flush_captions, kept_captions
from periscope.remote.chat_answers import ChatAnswer, ChatChoice
from periscope.remote.control import DownloadRow, LogLineRow, ModelRow, Snapshot, command, events, read_log, read_status
from periscope.remote.endpoint import Endpoint, Timeouts, pinned_context
from periscope.remote.openai_client import OpenAIClient, RemoteModel
from periscope.remote.pictures import FetchSettings, PictureFetcher

__all__ = [
    "ChatAnswer",
    "ChatChoice",
    "DownloadRow",
    "Endpoint",
    "FetchSettings",
    "LogLineRow",
    "ModelRow",
    "OpenAIClient",
    "PictureFetcher",
    "RemoteModel",
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
