"""Periscope: a local inference server for Apple Silicon that gives sight to text-only models.

As a library: `from periscope import Periscope` for all models of a models.yaml, `InferenceEngine` for one, and
`periscope.sync` for programs without async. `__all__` is all that is public.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from periscope.conversations import (
        CallStarted,
        ConversationEvent,
        ConversationOptions,
        ConversationResult,
        ExecutedCall,
        HttpServer,
        StdioServer,
        StopReason,
        TurnStarted,
    )
    from periscope.core import (
        AnswerGrammar,
        CallOutcome,
        CaptionedImage,
        FilePart,
        Finished,
        FinishReason,
        GenerationParams,
        Image,
        ImagePart,
        Message,
        ModelCard,
        OutputEvent,
        OutputSpec,
        ReasoningDelta,
        ResponseFormat,
        Role,
        TextDelta,
        TextPart,
        Tool,
        ToolCall,
        ToolCallDelta,
        ToolCallStart,
        ToolChoice,
        ToolChoiceMode,
        Usage,
        VisionUsage,
        Waiting,
    )
    from periscope.engine import EngineConfig, GenerationOutput, InferenceEngine
    from periscope.errors import (
        CaptionerUnavailable,
        ConfigError,
        EngineClosed,
        GenerationFailed,
        ModelUnavailable,
        PeriscopeError,
        RequestError,
        ServerBusy,
        ServerStopping,
    )
    from periscope.library.answer import ChatAnswer
    from periscope.library.embedded import Periscope
    from periscope.library.openai_adapter import ChatCompletionError, OpenAIAdapter
    from periscope.library.pictures import attachment, picture
    from periscope.library.session import ResponsesSession

    __version__: str

__all__ = [
    "AnswerGrammar",
    "CallOutcome",
    "CallStarted",
    "CaptionedImage",
    "CaptionerUnavailable",
    "ChatAnswer",
    "ChatCompletionError",
    "ConfigError",
    "ConversationEvent",
    "ConversationOptions",
    "ConversationResult",
    "EngineClosed",
    "EngineConfig",
    "ExecutedCall",
    "FilePart",
    "FinishReason",
    "Finished",
    "GenerationFailed",
    "GenerationOutput",
    "GenerationParams",
    "HttpServer",
    "Image",
    "ImagePart",
    "InferenceEngine",
    "Message",
    "ModelCard",
    "ModelUnavailable",
    "OpenAIAdapter",
    "OutputEvent",
    "OutputSpec",
    "Periscope",
    "PeriscopeError",
    "ReasoningDelta",
    "RequestError",
    "ResponseFormat",
    "ResponsesSession",
    "Role",
    "ServerBusy",
    "ServerStopping",
    "StdioServer",
    "StopReason",
    "TextDelta",
    "TextPart",
    "Tool",
    "ToolCall",
    "ToolCallDelta",
    "ToolCallStart",
    "ToolChoice",
    "ToolChoiceMode",
    "TurnStarted",
    "Usage",
    "VisionUsage",
    "Waiting",
    "__version__",
    "attachment",
    "picture",
]
#: Where those are that are not in `periscope.core`.
_HOMES: Mapping[str, str] = {
    **dict.fromkeys(("EngineConfig", "GenerationOutput", "InferenceEngine"), "periscope.engine"),
    **dict.fromkeys(
        (
            "CaptionerUnavailable",
            "ConfigError",
            "EngineClosed",
            "GenerationFailed",
            "ModelUnavailable",
            "PeriscopeError",
            "RequestError",
            "ServerBusy",
            "ServerStopping",
        ),
        "periscope.errors",
    ),
    **dict.fromkeys(
        (
            "CallStarted",
            "ConversationEvent",
            "ConversationOptions",
            "ConversationResult",
            "ExecutedCall",
            "HttpServer",
            "StdioServer",
            "StopReason",
            "TurnStarted",
        ),
        "periscope.conversations",
    ),
    "ChatAnswer": "periscope.library.answer",
    **dict.fromkeys(("ChatCompletionError", "OpenAIAdapter"), "periscope.library.openai_adapter"),
    "Periscope": "periscope.library.embedded",
    **dict.fromkeys(("attachment", "picture"), "periscope.library.pictures"),
    "ResponsesSession": "periscope.library.session",
}


def __getattr__(name: str) -> Any:
    """The public names, imported on first use: the command line needs none to print its help, and MLX takes seconds."""
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(import_module(_HOMES.get(name, "periscope.core")), name)
    raise AttributeError(f"module 'periscope' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlx-periscope")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
