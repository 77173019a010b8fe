"""How each family of captioners is asked, and how much of a picture it gets. Plain data.

A family is one entry of `FAMILIES`. It says only what differs from `ANY_CAPTIONER`: vision-language models that follow
instructions are asked in the same words. models.yaml overrides each value (`vision_proxy.prompt_template`,
`max_tokens`, `max_side_px`, `params.max_image_tiles`).

What a picture costs is the tokens it becomes in the captioner's prompt. Counted with mlx-vlm 0.7's processors as the
repositories configure them, a picture of 1024 pixels' side becomes at most 1,400 of them: 1,369 in Qwen2-VL, Qwen2.5-VL
and Mistral 3, 1,024 in Qwen3-VL and Qwen3.5, 280 in Gemma 4, 256 in Gemma 3. The families that took more are held to
about that here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT, LOOK_FORM, QUESTION_FORM


@dataclass(frozen=True, slots=True)
class CaptionerFamily:
    """Models that caption alike.

    Attributes:
        pattern: found in the model's repository, folder or `model_type`, in lower case without `-`, `_` and `.`.
        prompt: what is asked about a picture.
        question_form: the same where the question is shown, too; `{prompt}` and `{question}` stand for them.
        look_form: what is asked when a text model looks again, with `{question}`.
        max_tokens: the longest caption.
        max_side_px: the longest side of a picture that it gets.
        max_image_tiles: tiles that its processor may cut a picture into; None = as its files say.
    """

    name: str
    pattern: re.Pattern[str]
    prompt: str = DEFAULT_CAPTION_PROMPT
    question_form: str = QUESTION_FORM
    look_form: str = LOOK_FORM
    max_tokens: int = 256
    max_side_px: int = 1024
    max_image_tiles: int | None = None


FAMILIES: Final = (
    # Trained on task words, which are all it follows ("PaliGemma prompt and system instructions", ai.google.dev): of
    # those for descriptions this is the one that the mix checkpoints know. No checkpoint takes more than 896 pixels.
    CaptionerFamily(
        "PaliGemma",
        re.compile("paligemma"),
        prompt="caption en",
        question_form="answer en {question}",
        look_form="answer en {question}",
        max_tokens=128,
        max_side_px=896,
    ),
    # One of the prompts that its makers list; it reads others as a wish for OCR (README of deepseek-ai/DeepSeek-OCR).
    CaptionerFamily("DeepSeek-OCR", re.compile("deepseekocr|unlimitedocr"), prompt="Describe this image in detail."),
    # Every picture is enlarged to 4 x 4 tiles: 3,126 tokens in Idefics 3, 1,341 in SmolVLM2, of which 928 and 403 stay.
    # Two tiles a side is the lower setting of SmolVLM's own documentation.
    CaptionerFamily("SmolVLM and Idefics 3", re.compile("smolvlm|idefics3"), max_image_tiles=4),
    # Up to 12 tiles of 256 tokens, and the whole beside them: 3,351 tokens for 1024x768, of which 1,303 stay.
    CaptionerFamily("InternVL", re.compile("internvl"), max_image_tiles=4),
    # Up to 10 tiles of 256 tokens, and the whole beside them: 1,908 tokens for 1024x768, of which 1,358 stay.
    CaptionerFamily("LFM2-VL", re.compile("lfm25?vl"), max_image_tiles=4),
    # Up to 4 tiles of 576 tokens, and the whole beside them: 2,949 tokens for a square, of which 1,197 stay.
    CaptionerFamily("LLaVA-NeXT", re.compile("llavanext|llavav16"), max_image_tiles=2),
    # Its makers give 16 crops to single pictures and 4 where there are several (README of Phi-3.5-vision-instruct).
    CaptionerFamily("Phi-3 Vision", re.compile("phi3v|phi35v"), max_image_tiles=4),
    # A token for each patch of 16 pixels' side: 4,181 for a square of 1024 pixels, 1,661 for one of 640.
    CaptionerFamily("Pixtral", re.compile("pixtral"), max_side_px=640),
)
ANY_CAPTIONER: Final = CaptionerFamily("any captioner", re.compile(""))


def captioner_family(*names: str) -> CaptionerFamily:
    """Pure: the family of a model that is known by these names: repository or folder, `model_type`."""
    plain = [re.sub(r"[-_.]", "", name.lower()) for name in names]
    return next((family for family in FAMILIES if any(family.pattern.search(name) for name in plain)), ANY_CAPTIONER)
