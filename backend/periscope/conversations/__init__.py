"""Conversations with tools: of MCP servers, and Python functions. `ResponsesSession` is the entrance."""

from __future__ import annotations

from periscope.conversations.conversation import (
    Answering,
    CallStarted,
    ConversationEvent,
    ConversationOptions,
    ConversationResult,
    ExecutedCall,
    StopReason,
    TurnStarted,
)
from periscope.conversations.servers import HttpServer, McpServer, StdioServer
from periscope.conversations.session import ResponsesSession
from periscope.core import CallOutcome

__all__ = [
    "Answering",
    "CallOutcome",
    "CallStarted",
    "ConversationEvent",
    "ConversationOptions",
    "ConversationResult",
    "ExecutedCall",
    "HttpServer",
    "McpServer",
    "ResponsesSession",
    "StdioServer",
    "StopReason",
    "TurnStarted",
]
