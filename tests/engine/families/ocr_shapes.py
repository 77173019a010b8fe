"""OCR models that can read for text models, a few layers each, as their repositories' files say.

The others of `model_families.py` are not among them: mlx-vlm 0.7 has the sizes of DeepSeek-OCR's vision tower and the
ids of dots.ocr's tokens in its code.
"""

from __future__ import annotations

from tests.engine.families.vision_shapes import _PIXELS, _SIGHT, _TEXT, JSON, VisionFamily

_M_ROPE: JSON = {"rope_type": "default", "type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0}


def _pixels(processor: str, temporal_patch_size: int) -> JSON:
    sizes = {"patch_size": 14, "merge_size": 2, "temporal_patch_size": temporal_patch_size}
    return {**_PIXELS, **sizes, "image_processor_type": processor, "min_pixels": 56 * 56, "max_pixels": 84 * 84}


#: By the architecture that config.json names.
OCR_FAMILIES: dict[str, VisionFamily] = {
    "glm_ocr": VisionFamily(
        {
            "model_type": "glm_ocr",
            "hidden_size": 64,
            "text_config": {
                **{key: value for key, value in _TEXT.items() if key != "rope_theta"},
                "model_type": "glm_ocr_text",
                "rope_parameters": {**_M_ROPE, "partial_rotary_factor": 1.0},
            },
            "vision_config": {
                "model_type": "glm_ocr_vision",
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_heads": 2,
                "patch_size": 14,
                "image_size": 56,
                "out_hidden_size": 64,
            },
        },
        "<|begin_of_image|><|image|><|end_of_image|>",
        ("<|begin_of_image|>", "<|image|>", "<|end_of_image|>", "<|video|>"),
        {
            "image_token_id": "<|image|>",
            "video_token_id": "<|video|>",
            "image_start_token_id": "<|begin_of_image|>",
            "image_end_token_id": "<|end_of_image|>",
        },
        {"preprocessor_config.json": _pixels("Glm46VImageProcessor", 2)},
    ),
    "paddleocr_vl": VisionFamily(
        {
            **_TEXT,
            "model_type": "paddleocr_vl",
            "hidden_size": 1024,
            "use_bias": False,
            "hidden_act": "silu",
            "rope_scaling": _M_ROPE,
            "vision_config": {**_SIGHT, "model_type": "paddleocr_vl"},
        },
        "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
        ("<|IMAGE_START|>", "<|IMAGE_PLACEHOLDER|>", "<|IMAGE_END|>"),
        {
            "image_token_id": "<|IMAGE_PLACEHOLDER|>",
            "vision_start_token_id": "<|IMAGE_START|>",
            "vision_end_token_id": "<|IMAGE_END|>",
        },
        {"preprocessor_config.json": _pixels("ImageProcessor", 1)},
    ),
}
