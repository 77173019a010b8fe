"""Periscope: a local inference server for Apple Silicon that gives sight to text-only models.

As a library: `from periscope import InferenceEngine, GenerationParams`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from periscope.core import (
        GenerationParams,
        Image,
        Message,
        OutputSpec,
        ResponseFormat,
        Role,
        TextPart,
        Tool,
        ToolChoice,
        ToolChoiceMode,
    )
    from periscope.engine import EngineConfig, GenerationOutput, InferenceEngine

    __version__: str

__all__ = [
    "EngineConfig",
    "GenerationOutput",
    "GenerationParams",
    "Image",
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
_OF_ENGINE = frozenset(("EngineConfig", "GenerationOutput", "InferenceEngine"))


def __getattr__(name: str) -> Any:
    """The public names, imported on first use: the command line needs none to print its help, and MLX takes seconds."""
    if name == "__version__":
        return _version()
    if name in __all__:
        return getattr(import_module("periscope.engine" if name in _OF_ENGINE else "periscope.core"), name)
    raise AttributeError(f"module 'periscope' has no attribute {name!r}")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("mlx-periscope")
    except PackageNotFoundError:  # a source tree that was never installed
        return "0+unknown"
