"""Random-weight checkpoints of multimodal families, a few layers each, as mlx-vlm stores them; made on the spot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_vlm.utils import get_model_and_args

from tests.tiny_models import write_tokenizer

CONTEXT_LENGTH = 2048
#: Embeddings are small beside what the layers add to them, so that an answer depends on more than its last token.
NOISE, EMBEDDING_NOISE = 0.3, 0.03
_EOS = 257
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_SIGLIP: dict[str, Any] = {
    "model_type": "siglip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
}
_MROPE = {"type": "mrope", "mrope_section": [2, 3, 3]}
_QWEN_TOKENS = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
#: As Qwen's: a message is a text or a list of parts.
_QWEN_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part.text }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: As SmolVLM's: a message is a list of parts and nothing else, and the colon depends on the first part.
_SMOLVLM_TEMPLATE = (
    "<|im_start|>{% for m in messages %}{{ m.role | capitalize }}{% if m.content[0].type == 'image' %}:{% else %}: "
    "{% endif %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% elif part.type == 'image' %}"
    "<image>{% endif %}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
#: As Gemma's: texts are trimmed, and a template's own marker begins an image.
_GEMMA_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content | trim }}{% else %}"
    "{% for part in m.content %}{% if part.type == 'image' %}<start_of_image>{% endif %}{{ part.text | trim }}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


@dataclass(frozen=True)
class MultimodalFamily:
    """One architecture.

    Attributes:
        config: config.json without sizes of the vocabulary; `ids` has the names of those of tokens.
        tokens: special tokens beside ChatML's.
        ids: config key -> token.
        files: name -> content of the processor's files.
        template: of chats.
        image_token: stands for an image in a prompt's tokens.
        num_tokens: image tokens of a picture of 64 x 48 pixels.
    """

    config: Mapping[str, Any]
    tokens: tuple[str, ...]
    ids: Mapping[str, str]
    files: Mapping[str, Any]
    template: str
    image_token: str
    num_tokens: int
    tokenizer_config: Mapping[str, Any] = field(default_factory=dict)


_QWEN_IDS = {
    "image_token_id": "<|image_pad|>",
    "video_token_id": "<|video_pad|>",
    "vision_start_token_id": "<|vision_start|>",
    "vision_end_token_id": "<|vision_end|>",
}
_QWEN_PIXELS = {
    "patch_size": 4,
    "temporal_patch_size": 2,
    "merge_size": 2,
    "min_pixels": 256,
    "max_pixels": 4096,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}

MULTIMODAL: dict[str, MultimodalFamily] = {
    "qwen2_vl": MultimodalFamily(
        {
            "model_type": "qwen2_vl",
            **_TEXT,
            "rope_scaling": _MROPE,
            "tie_word_embeddings": True,
            "vision_config": {
                "model_type": "qwen2_vl",
                "depth": 2,
                "embed_dim": 32,
                "hidden_size": 64,
                "num_heads": 2,
                "patch_size": 4,
                "spatial_patch_size": 4,
            },
        },
        _QWEN_TOKENS,
        _QWEN_IDS,
        {"preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", **_QWEN_PIXELS}},
        _QWEN_TEMPLATE,
        "<|image_pad|>",
        48,
    ),
    "qwen2_5_vl": MultimodalFamily(
        {
            "model_type": "qwen2_5_vl",
            **_TEXT,
            "rope_scaling": _MROPE,
            "tie_word_embeddings": True,
            "vision_config": {
                "model_type": "qwen2_5_vl",
                "depth": 2,
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "num_heads": 2,
                "patch_size": 4,
                "spatial_patch_size": 4,
                "window_size": 16,
                "fullatt_block_indexes": [1],
            },
        },
        _QWEN_TOKENS,
        _QWEN_IDS,
        {"preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", **_QWEN_PIXELS}},
        _QWEN_TEMPLATE,
        "<|image_pad|>",
        48,
    ),
    "qwen3_vl": MultimodalFamily(
        {
            "model_type": "qwen3_vl",
            "tie_word_embeddings": True,
            "text_config": {
                **_TEXT,
                "model_type": "qwen3_vl_text",
                "head_dim": 16,
                "rope_scaling": _MROPE | {"type": "default"},
                "tie_word_embeddings": True,
            },
            "vision_config": {
                "model_type": "qwen3_vl",
                "depth": 3,
                "hidden_size": 32,
                "intermediate_size": 64,
                "out_hidden_size": 64,
                "num_heads": 2,
                "patch_size": 4,
                "num_position_embeddings": 64,
                "deepstack_visual_indexes": [0, 1],
            },
        },
        _QWEN_TOKENS,
        _QWEN_IDS,
        {"preprocessor_config.json": {"image_processor_type": "Qwen2VLImageProcessor", **_QWEN_PIXELS}},
        _QWEN_TEMPLATE,
        "<|image_pad|>",
        48,
    ),
    "smolvlm": MultimodalFamily(
        {
            "model_type": "smolvlm",
            "scale_factor": 2,
            "text_config": {**_TEXT, "model_type": "llama", "head_dim": 16},
            "vision_config": {**_SIGLIP, "patch_size": 4, "image_size": 32},
        },
        (
            *("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
            *(f"<row_{row}_col_{column}>" for row in range(1, 4) for column in range(1, 4)),
        ),
        {"image_token_id": "<image>"},
        {
            "preprocessor_config.json": {
                "image_processor_type": "SmolVLMImageProcessor",
                "do_image_splitting": True,
                "do_pad": True,
                "size": {"longest_edge": 64},
                "max_image_size": {"longest_edge": 32},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            "processor_config.json": {"image_seq_len": 16},
        },
        _SMOLVLM_TEMPLATE,
        "<image>",
        80,
    ),
    "gemma3": MultimodalFamily(
        {
            "model_type": "gemma3",
            "hidden_size": 64,
            "text_config": {
                **_TEXT,
                "model_type": "gemma3_text",
                "num_hidden_layers": 4,
                "head_dim": 16,
                "query_pre_attn_scalar": 16,
                "sliding_window": 64,
                "sliding_window_pattern": 2,
                "mm_tokens_per_image": 16,
            },
            "vision_config": {**_SIGLIP, "patch_size": 4, "image_size": 32},
        },
        ("<start_of_image>", "<end_of_image>", "<image_soft_token>", "<pad>"),
        {"image_token_index": "<image_soft_token>", "pad_token_id": "<pad>"},
        {
            "preprocessor_config.json": {
                "image_processor_type": "Gemma3ImageProcessor",
                "processor_class": "Gemma3Processor",
                "do_pan_and_scan": False,
                "size": {"height": 32, "width": 32},
                "image_mean": [0.5, 0.5, 0.5],
                "image_std": [0.5, 0.5, 0.5],
            },
            "processor_config.json": {"image_seq_length": 16, "processor_class": "Gemma3Processor"},
        },
        _GEMMA_TEMPLATE,
        "<image_soft_token>",
        16,
        {
            "extra_special_tokens": {
                "boi_token": "<start_of_image>",
                "eoi_token": "<end_of_image>",
                "image_token": "<image_soft_token>",
            }
        },
    ),
}


def write_multimodal_model(folder: Path, family: MultimodalFamily, *, seed: int = 0) -> Path:
    """Small layers of a known shape: loads in milliseconds, says nonsense that depends on every pixel."""
    vocab_size = write_tokenizer(folder, family.template, family.tokens)
    vocab = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {token["content"]: token["id"] for token in vocab}
    config = dict(family.config) | {"vocab_size": vocab_size, "eos_token_id": _EOS}
    config |= {key: ids[token] for key, token in family.ids.items()}
    if "text_config" in config:
        config["text_config"] = dict(config["text_config"]) | {"vocab_size": vocab_size}
    (folder / "config.json").write_text(json.dumps(config))
    for name, content in family.files.items():
        (folder / name).write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    pad = {"pad_token": "<pad>"} if "<pad>" in family.tokens else {"pad_token": "<|im_end|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | pad | dict(family.tokenizer_config)))
    module, _ = get_model_and_args(json.loads(json.dumps(config)))
    made = module.ModelConfig.from_dict(json.loads(json.dumps(config)))
    for name, part in (("text_config", module.TextConfig), ("vision_config", module.VisionConfig)):
        if isinstance(value := getattr(made, name), dict):
            setattr(made, name, part.from_dict(value))
    mx.random.seed(seed)
    weights = {
        name: mx.random.normal(array.shape) * (EMBEDDING_NOISE if "embed_tokens" in name else NOISE)
        for name, array in tree_flatten(module.Model(made).parameters())
    }
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder
