"""How each family of OCR models is asked for the text of a picture, and what it writes besides that text. Plain data.

A family is one entry of `FAMILIES`: the prompt that its makers give for plain text, and the markup that its answers may
hold all the same. Any other vision-language model is asked in words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

from periscope.vision.readers.markup import (
    without_corners,
    without_fence,
    without_grounding,
    without_html_tables,
    without_layout_json,
    without_otsl,
)

Markup: TypeAlias = Callable[[str], str]

#: Part of every cache key: raise it when the same answer of a model becomes another text.
FAMILIES_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class ModelFamily:
    """Models that are asked alike.

    Attributes:
        pattern: found in the model's repository, folder or `model_type`, in lower case without `-`, `_` and `.`.
        prompt: what the model is asked; the picture stands before it.
        markup: what takes the family's markup out of an answer, in this order.
    """

    name: str
    pattern: re.Pattern[str]
    prompt: str
    markup: tuple[Markup, ...]

    def text_of(self, answer: str) -> str:
        """Pure: the text of a picture, without markup and without blank lines around it."""
        for without in self.markup:
            answer = without(answer)
        return "\n".join(line.rstrip() for line in answer.split("\n")).strip("\n")


#: Sources: the families' model cards, `prompts.py` of dots.ocr, and for Falcon-OCR mlx-vlm's processor.
FAMILIES: Final = (
    ModelFamily(
        "DeepSeek-OCR",
        re.compile("deepseekocr|unlimitedocr"),
        "Free OCR.",
        (without_fence, without_grounding, without_html_tables),
    ),
    ModelFamily("GLM-OCR", re.compile("glmocr"), "Text Recognition:", (without_fence, without_html_tables)),
    ModelFamily(
        "dots.ocr",
        re.compile("dotsocr|dotsmocr"),
        "Extract the text content from this image.",
        (without_fence, without_layout_json, without_html_tables),
    ),
    ModelFamily("PaddleOCR-VL", re.compile("paddleocrvl"), "OCR:", (without_fence, without_otsl, without_html_tables)),
    ModelFamily(
        "HunyuanOCR",
        re.compile("hunyuanocr"),
        "Extract the text in the image.",
        (without_fence, without_corners, without_html_tables),
    ),
    ModelFamily(  # mlx-vlm passes its prompts on as they are, so this one says where the picture stands
        "Falcon-OCR",
        re.compile("falconocr"),
        "<|image|>Extract the text content from this image.\n<|OCR_PLAIN|>",
        (without_fence, without_html_tables),
    ),
)
ANY_MODEL: Final = ModelFamily(
    "any model",
    re.compile(""),
    "Write down all text in the image word for word, line by line, and nothing else.",
    (without_fence,),
)


def family_of(*names: str) -> ModelFamily:
    """Pure: the family of a model that is known by these names: repository or folder, `model_type`."""
    plain = [re.sub(r"[-_.]", "", name.lower()) for name in names]
    return next((family for family in FAMILIES if any(family.pattern.search(name) for name in plain)), ANY_MODEL)
