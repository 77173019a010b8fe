"""Periscope: a local inference server for Apple Silicon that gives sight to text-only models.

As a library: `from periscope import InferenceEngine, GenerationParams`.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from periscope.core import (
    GenerationParams,
    Message,
    OutputSpec,
    ResponseFormat,
    Role,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
)

if TYPE_CHECKING:
    from periscope.engine import EngineConfig, GenerationOutput, InferenceEngine

try:
    __version__ = version("mlx-periscope")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = [
    "EngineConfig",
    "GenerationOutput",
    "GenerationParams",
    "InferenceEngine",
    "Message",
    "OutputSpec",
    "ResponseFormat",
    "Role",
    "TextPart",
    "Tool",
    "ToolChoice",
    "ToolChoiceMode",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """The engine's names, imported on first use: MLX is not needed for the CLI's help or a client's import."""
    if name in {"EngineConfig", "GenerationOutput", "InferenceEngine"}:
        from periscope import engine

        return getattr(engine, name)
    raise AttributeError(f"module 'periscope' has no attribute {name!r}")
