"""Families of captioners: a model is found by its repository or its architecture, and what it is asked has a form."""

from __future__ import annotations

import pytest

from periscope.vision.captioner_families import captioner_family
from periscope.vision.prompts import caption_prompt
from tests.engine.families.vision_shapes import VISION_FAMILIES

#: Names of repositories -> the family. Those of `ANY_CAPTIONER` follow any instruction.
REPOSITORIES = {
    "mlx-community/paligemma2-3b-mix-448-8bit": "PaliGemma",
    "mlx-community/DeepSeek-OCR-8bit": "DeepSeek-OCR",
    "mlx-community/SmolVLM2-500M-Video-Instruct-mlx": "SmolVLM and Idefics 3",
    "mlx-community/Idefics3-8B-Llama3-4bit": "SmolVLM and Idefics 3",
    "mlx-community/InternVL3-8B-4bit": "InternVL",
    "mlx-community/LFM2-VL-1.6B-8bit": "LFM2-VL",
    "LiquidAI/LFM2.5-VL-1.6B-MLX-6bit": "LFM2-VL",
    "mlx-community/llava-v1.6-mistral-7b-4bit": "LLaVA-NeXT",
    "mlx-community/Phi-3.5-vision-instruct-4bit": "Phi-3 Vision",
    "mlx-community/pixtral-12b-4bit": "Pixtral",
    "mlx-community/Qwen2-VL-7B-Instruct-4bit": "any captioner",
    "mlx-community/Qwen3-VL-2B-Instruct-4bit": "any captioner",
    "mlx-community/gemma-3-4b-it-qat-4bit": "any captioner",
    "mlx-community/Mistral-Small-3.1-24B-Instruct-2503-4bit": "any captioner",
}
#: Architectures of the families above, as config.json names them.
ARCHITECTURES = {
    "paligemma": "PaliGemma",
    "idefics3": "SmolVLM and Idefics 3",
    "smolvlm": "SmolVLM and Idefics 3",
    "internvl_chat": "InternVL",
    "lfm2_vl": "LFM2-VL",
    "llava_next": "LLaVA-NeXT",
    "pixtral": "Pixtral",
}


@pytest.mark.parametrize("repository", REPOSITORIES)
def test_a_model_is_known_by_its_repository(repository: str) -> None:
    """Also before it is downloaded, and on another server."""
    assert captioner_family(repository).name == REPOSITORIES[repository]


@pytest.mark.parametrize("model_type", VISION_FAMILIES)
def test_a_model_is_known_by_its_architecture(model_type: str) -> None:
    """A folder may be called anything."""
    assert captioner_family("/models/eyes", model_type).name == ARCHITECTURES.get(model_type, "any captioner")


def test_a_form_is_filled_once() -> None:
    """What looks like a place in a question or a template stays as it is written."""
    both = caption_prompt("Say {question}.", "Why {prompt}?", "{prompt} / {question}")
    assert both == "Say {question}. / Why {prompt}?"
    assert caption_prompt("caption en", "What colour?", "answer en {question}") == "answer en What colour?"
    assert caption_prompt("caption en", "", "answer en {question}") == "caption en"
