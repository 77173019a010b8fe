"""ImageProcessor: the facade over mlx-vlm's processors. Images become text and pixel arrays, one image at a time.

Any thread: a lock guards the processor, which is not thread-safe. Holds no weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

import mlx.core as mx
import numpy as np
import PIL.Image
from mlx_vlm import prepare_inputs

from periscope.core import Image
from periscope.engine.text.images import ImageTokens
from periscope.errors import ModelLoadError

_SAMPLE_SIDE_PX = 56
#: An image that every model can process, for testing whether the model still works.
SAMPLE_IMAGE = Image(
    rgb=bytes([128]) * (3 * _SAMPLE_SIDE_PX**2),
    width=_SAMPLE_SIDE_PX,
    height=_SAMPLE_SIDE_PX,
    source_width=_SAMPLE_SIDE_PX,
    source_height=_SAMPLE_SIDE_PX,
    sha256="",
)
#: Images whose tokens are remembered, so that those of earlier turns are not preprocessed again. Some kilobytes each.
_MAX_KNOWN_IMAGES = 256


class ImageProcessor:
    """Owns one model's processor. An `ImageTokenizer` of prompts.

    Args:
        config: mlx-vlm's configuration of the model.

    Attributes:
        image_token: what the processor replaces by an image's tokens.
        image_token_id: its id.
        sample: the tokens of `SAMPLE_IMAGE`.
        sample_ids: the tokens of that image's place in a prompt.

    Raises:
        ModelLoadError: the processor writes no image tokens.
    """

    def __init__(self, processor: Any, config: Any) -> None:
        self._processor = processor
        self._config = config
        self._lock = threading.Lock()
        self._known: OrderedDict[tuple[str, int, int], ImageTokens] = OrderedDict()
        self.image_token_id = _image_token_id(processor, config)
        self.image_token = self._find_token()
        self.sample = self.tokens_of(SAMPLE_IMAGE)
        ids = np.asarray(self._inputs(SAMPLE_IMAGE, self.image_token)["input_ids"]).reshape(-1)
        at = self._image_tokens(ids)
        self.sample_ids: list[int] = ids[at[0] : at[-1] + 1].tolist()

    def _find_token(self) -> str:
        """Most processors replace their image token, Gemma 3's the one that begins an image, InternVL's `<image>`."""
        tokens = (getattr(self._processor, name, None) for name in ("image_token", "boi_token"))
        for token in (*map(str, filter(None, tokens)), "<image>"):
            try:
                if self._image_tokens(self._inputs(SAMPLE_IMAGE, token)["input_ids"]).size:
                    return token
            except Exception:  # noqa: BLE001, S112 - a processor may raise anything for a token it does not replace
                continue
        raise ModelLoadError(
            "The model's processor writes no tokens for an image, so Periscope cannot show it images. Use it as the "
            "captioner of a text model instead (`vision_mode: proxy`)."
        )

    def tokens_of(self, image: Image) -> ImageTokens:
        """The tokens of an image: preprocessed once, then remembered. Blocks.

        Raises:
            Exception: whatever the processor raises for this image.
        """
        key = (image.sha256, image.width, image.height)
        known = self._known.get(key)
        if known is not None:
            return known
        inputs = self._inputs(image, self.image_token)
        ids = np.asarray(inputs["input_ids"]).reshape(-1)
        with self._lock:
            text = str(self._tokenizer.decode(ids.tolist(), skip_special_tokens=False))
            grid = inputs.get("image_grid_thw")
            sides = () if grid is None else tuple(int(side) for side in np.asarray(grid).reshape(-1))
            known = self._known[key] = ImageTokens(text, int(self._image_tokens(ids).size), sides)
            while len(self._known) > _MAX_KNOWN_IMAGES:
                self._known.popitem(last=False)
        return known

    def inputs(self, image: Image) -> dict[str, Any]:
        """What the model's vision encoder is called with: `pixel_values` and what belongs to them. Blocks.

        Raises:
            Exception: whatever the processor raises for this image.
        """
        made = self._inputs(image, self.image_token)
        return {name: value for name, value in made.items() if name not in ("input_ids", "attention_mask")}

    @property
    def _tokenizer(self) -> Any:
        return getattr(self._processor, "tokenizer", self._processor)

    def _image_tokens(self, ids: Any) -> np.ndarray:
        return np.flatnonzero(np.asarray(ids).reshape(-1) == self.image_token_id)

    def _inputs(self, image: Image, text: str) -> dict[str, Any]:
        with self._lock:
            made: dict[str, Any] = prepare_inputs(
                self._processor,
                images=[pil_image(image)],
                prompts=text,
                image_token_index=getattr(self._config, "image_token_index", None),
            )
        return {name: value for name, value in made.items() if isinstance(value, (mx.array, int))}


def _image_token_id(processor: Any, config: Any) -> int:
    """Under the names that processors (InternVL) and configurations have for it; -1 if there is none."""
    places = ((processor, "img_context_token_id"), (config, "image_token_index"), (config, "image_token_id"))
    found = (getattr(place, name, None) for place, name in places)
    return next((int(value) for value in found if value is not None), -1)


def pil_image(image: Image) -> PIL.Image.Image:
    """The image as processors take it."""
    return PIL.Image.frombytes("RGB", (image.width, image.height), image.rgb)
