"""Reads a vision-language model that answers by itself. Worker thread only; the caller holds `LIBRARY_LOCK`."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from mlx_lm.utils import load_config, load_tokenizer
from mlx_vlm import load

from periscope.engine.loading.loader import has_vision, read_model_config
from periscope.engine.multimodal.network import VisionLanguageNetwork
from periscope.engine.multimodal.processor import ImageProcessor
from periscope.engine.multimodal.tiles import limit_tiles
from periscope.errors import ModelLoadError


def read_vision_language_model(
    path: Path, *, max_image_tiles: int | None = None, chat_template: str | None = None
) -> tuple[VisionLanguageNetwork, Any, ImageProcessor]:
    """A model with lazy weights, mlx-lm's tokenizer for it, and its image processor, from a folder.

    Args:
        max_image_tiles, chat_template: as in `EngineConfig`.

    Raises:
        ModelLoadError: it has no vision encoder, or one that cannot be used here; anything else is the library's error.
    """
    if not has_vision(read_model_config(path)):
        raise ModelLoadError(
            f"{path.name} has no vision encoder. Set `vision_mode: proxy` with a captioner for it, or `disabled`."
        )
    with redirect_stdout(sys.stderr):  # the processors of some families print; standard output may be for JSON
        model, processor = load(str(path), lazy=True)
    if max_image_tiles is not None:
        limit_tiles(getattr(processor, "image_processor", None), max_image_tiles)
    # mlx-vlm gives its tokenizer the template of chat_template.json, which transformers does not look for. Some of its
    # processors have one of their own, for repositories without any.
    own = getattr(getattr(processor, "tokenizer", None), "chat_template", None)
    template = chat_template or own or getattr(processor, "chat_template", None)
    extra = {"chat_template": template} if template else {}
    tokenizer = load_tokenizer(path, extra, eos_token_ids=load_config(path).get("eos_token_id"))
    images = ImageProcessor(processor, model.config)
    return VisionLanguageNetwork(model, images), tokenizer, images
