"""What a model is to clients, and the files it is made of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class VisionMode(StrEnum):
    """What happens to a request's images: refused, captioned for the text model, or shown to the model itself."""

    DISABLED = "disabled"
    PROXY = "proxy"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What `/v1/models` tells about a configured model; known before anything is loaded.

    Attributes:
        context_length: tokens, prompt and completion together; None until it is known.
        is_batched: requests that run together share forward passes, which some architectures cannot; None until the
            model was loaded.
        is_loaded: the model is ready now.
    """

    name: str
    aliases: tuple[str, ...]
    created: int
    context_length: int | None
    vision: VisionMode
    has_tools: bool | None
    has_reasoning: bool | None
    is_batched: bool | None
    is_loaded: bool
    state: str


#: Which files of a hub repository make up a model, and which of those are a second copy of its weights that nobody
#: reads. `/` is matched by `*`. What was fetched and what is looked for on the disk must be the same files.
MODEL_FILES = ("*.safetensors", "*.json", "*.jsonl", "*.jinja", "*.model", "*.tiktoken", "*.txt")
NOT_MODEL_FILES = ("*consolidated*.safetensors", "original/*", "onnx/*")
