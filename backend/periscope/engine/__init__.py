"""Tokens in, tokens out: models on worker threads, with continuous batching. Knows MLX; nothing of HTTP or pools."""

from periscope.engine.config import EngineConfig
from periscope.engine.embedding.embedder import EmbeddingEngine
from periscope.engine.engine import InferenceEngine, ModelInfo
from periscope.engine.generation import GenerationOutput, GenerationStats, GenerationStream
from periscope.engine.vision.vision_language import VisionLanguageEngine

__all__ = [
    "EmbeddingEngine",
    "EngineConfig",
    "GenerationOutput",
    "GenerationStats",
    "GenerationStream",
    "InferenceEngine",
    "ModelInfo",
    "VisionLanguageEngine",
]
