"""Tokens in, tokens out: models on worker threads, with continuous batching. Knows MLX; nothing of HTTP or pools."""

from periscope.engine.engine import (
    GenerationOutput,
    GenerationStats,
    GenerationStream,
    InferenceEngine,
    ModelInfo,
)
from periscope.engine.loader import EngineConfig
from periscope.engine.vision_language import VisionLanguageEngine

__all__ = [
    "EngineConfig",
    "GenerationOutput",
    "GenerationStats",
    "GenerationStream",
    "InferenceEngine",
    "ModelInfo",
    "VisionLanguageEngine",
]
