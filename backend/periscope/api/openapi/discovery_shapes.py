"""The shapes in which LM Studio's and llama.cpp's clients read models, for the OpenAPI document. See `shapes.py`."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic reads that of typing from Python 3.12 on


class LMStudioModel(TypedDict):
    id: str
    object: Literal["model"]
    type: Literal["llm", "vlm", "embeddings"]
    publisher: str
    arch: str | None
    compatibility_type: str
    quantization: str | None
    state: Literal["loaded", "loading", "not-loaded"]
    max_context_length: int | None
    loaded_context_length: int | None
    capabilities: list[str]


class LMStudioModels(TypedDict):
    object: Literal["list"]
    data: list[LMStudioModel]


class LMStudioV1Models(TypedDict):
    models: list[dict[str, Any]]


class LlamaProps(TypedDict):
    default_generation_settings: dict[str, Any]
    total_slots: int
    model_alias: str
    model_path: str
    modalities: dict[str, bool]
    chat_template: str
    build_info: str
    is_sleeping: bool
