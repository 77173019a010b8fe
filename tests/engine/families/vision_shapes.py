"""The vision-language architectures that people run on Macs, a few layers each: what their repositories' files say.

Each is written as mlx-vlm's conversions on the hub are: config.json, the files of its image processor, the special
tokens of its prompts. Only sizes are small. Phi-3.5-Vision, FastVLM and Gemma 3n are not among them: mlx-vlm 0.7 has
the sizes of their vision towers in its code, hundreds of millions of weights. Moondream 2 fetches its tokenizer from
another repository.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

JSON: TypeAlias = Mapping[str, Any]

#: A picture becomes its family's token, whatever shape mlx-vlm gives the message.
_TEMPLATE = (
    "{%% for m in messages %%}<|im_start|>{{ m.role }}\n"
    "{%% if m.content is string %%}{{ m.content }}{%% else %%}{%% for part in m.content %%}"
    "{%% if part.type == 'image' %%}%s{%% else %%}{{ part.text or part.content }}{%% endif %%}"
    "{%% endfor %%}{%% endif %%}<|im_end|>\n{%% endfor %%}"
    "{%% if add_generation_prompt %%}<|im_start|>assistant\n{%% endif %%}"
)
_TEXT: JSON = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
}
_SIGHT: JSON = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": 56,
    "patch_size": 14,
}
_PIXELS: JSON = {
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "do_convert_rgb": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "rescale_factor": 1 / 255,
}
_SQUARE: JSON = {"height": 56, "width": 56}


@dataclass(frozen=True)
class VisionFamily:
    """One architecture.

    Attributes:
        config: config.json without the vocabulary's size and the ids of tokens.
        image: what stands for a picture in a prompt.
        tokens: special tokens of its tokenizer, beside those of ChatML.
        ids: key of config.json -> the token whose id it holds.
        files: further JSON files, by name.
        named_tokens: of tokenizer_config.json: name that its processor uses -> the token.
        noise: standard deviation of its weights.
    """

    config: JSON
    image: str
    tokens: tuple[str, ...]
    ids: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, JSON] = field(default_factory=dict)
    named_tokens: Mapping[str, str] = field(default_factory=dict)
    noise: float = 0.4

    @property
    def chat_template(self) -> str:
        """ChatML, with the family's token where a picture stands."""
        return _TEMPLATE % self.image

    def config_for(self, vocab_size: int, token_ids: Mapping[str, int]) -> dict[str, Any]:
        """config.json, with the vocabulary's size and the ids of tokens where mlx-vlm looks for them."""
        config = {**self.config, "vocab_size": vocab_size, "eos_token_id": token_ids["<|im_end|>"]}
        for part in {"text_config", "llm_config"} & config.keys():
            config[part] = {**config[part], "vocab_size": vocab_size}
        return config | {key: token_ids[token] for key, token in self.ids.items()}


def _qwen(model_type: str, text: JSON, sight: JSON, patch_size: int) -> VisionFamily:
    """Qwen2-VL and its successors: pictures in their own size, positions in three dimensions."""
    tower = {"model_type": model_type, "in_channels": 3, "depth": 2, "num_heads": 2, "patch_size": patch_size}
    pixels = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "merge_size": 2,
        "patch_size": patch_size,
        "temporal_patch_size": 2,
        "min_pixels": 4 * (2 * patch_size) ** 2,
        "max_pixels": 9 * (2 * patch_size) ** 2,
    }
    return VisionFamily(
        {**text, "model_type": model_type, "vision_config": {**tower, "spatial_merge_size": 2, **sight}},
        "<|vision_start|><|image_pad|><|vision_end|>",
        ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"),
        {
            "vision_start_token_id": "<|vision_start|>",
            "vision_end_token_id": "<|vision_end|>",
            "image_token_id": "<|image_pad|>",
            "video_token_id": "<|video_pad|>",
        },
        {"preprocessor_config.json": {**_PIXELS, **pixels}},
    )


def _idefics(model_type: str, name: str) -> VisionFamily:
    """Idefics 3 and SmolVLM: a picture is enlarged and cut into tiles, and the whole of it stands behind them."""
    pixels = {
        "image_processor_type": f"{name}ImageProcessor",
        "size": {"longest_edge": 112},
        "max_image_size": {"longest_edge": 56},
        "do_image_splitting": True,
        "do_pad": True,
    }
    return VisionFamily(
        {
            "model_type": model_type,
            "scale_factor": 2,
            "text_config": {**_TEXT, "model_type": "llama"},
            "vision_config": {**_SIGHT, "model_type": f"{model_type}_vision"},
        },
        "<image>",
        ("<image>", "<fake_token_around_image>", "<global-img>", "<end_of_utterance>"),
        {"image_token_id": "<image>"},
        {
            "preprocessor_config.json": {**_PIXELS, **pixels},
            "processor_config.json": {"processor_class": f"{name}Processor", "image_seq_len": 4},
        },
    )


def _llava(model_type: str, text_type: str, processor: str, pixels: JSON) -> VisionFamily:
    """LLaVA and LLaVA-NeXT: CLIP's features of the second layer from the end, without that of the class."""
    chosen = {"vision_feature_layer": -2, "vision_feature_select_strategy": "default"}
    return VisionFamily(
        {
            "model_type": model_type,
            **chosen,
            "text_config": {**_TEXT, "model_type": text_type},
            "vision_config": {**_SIGHT, "model_type": "clip_vision_model", "projection_dim": 64},
        },
        "<image>",
        ("<image>",),
        {"image_token_index": "<image>"},
        {
            "preprocessor_config.json": {
                **_PIXELS,
                "image_processor_type": processor,
                "size": {"shortest_edge": 56},
                "crop_size": _SQUARE,
                "do_center_crop": True,
                **pixels,
            },
            "processor_config.json": {"patch_size": 14, "num_additional_image_tokens": 1, **chosen},
        },
    )


def _pixtral(model_type: str, text: JSON, merging: JSON) -> VisionFamily:
    """Pixtral, and Mistral 3 with the same eyes: pictures in their own size, a token at the end of each line."""
    tower = {"model_type": "pixtral", "head_dim": 16, "rope_theta": 10000.0, "image_size": 84}
    pixels = {
        "image_processor_type": "PixtralImageProcessor",
        "size": {"longest_edge": 84},
        "patch_size": {"height": 14, "width": 14},
    }
    return VisionFamily(
        {
            "model_type": model_type,
            "vision_feature_layer": -1,
            **merging,
            "text_config": {**_TEXT, **text},
            "vision_config": {**_SIGHT, **tower},
        },
        "[IMG]",
        ("[IMG]", "[IMG_BREAK]", "[IMG_END]"),
        {"image_token_index": "[IMG]"},
        {"preprocessor_config.json": {**_PIXELS, **pixels}, "processor_config.json": {"patch_size": 14, **merging}},
    )


_TOWER: JSON = {"hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}
_M_ROPE: JSON = {"rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]}}
_LINEAR_ATTENTION: JSON = {
    "full_attention_interval": 2,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 16,
}
_QWEN: dict[str, VisionFamily] = {
    "qwen2_vl": _qwen("qwen2_vl", {**_TEXT, **_M_ROPE}, {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}, 14),
    "qwen2_5_vl": _qwen(
        "qwen2_5_vl", {**_TEXT, **_M_ROPE}, {**_TOWER, "window_size": 56, "fullatt_block_indexes": [1]}, 14
    ),
    "qwen3_vl": _qwen(
        "qwen3_vl",
        {
            "text_config": {
                **_TEXT,
                "model_type": "qwen3_vl_text",
                "rope_scaling": {"type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True},
            }
        },
        {**_TOWER, "temporal_patch_size": 2, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        16,
    ),
    "qwen3_5": _qwen(
        "qwen3_5",
        {
            "text_config": {
                **_TEXT,
                **_LINEAR_ATTENTION,
                "model_type": "qwen3_5_text",
                "num_hidden_layers": 4,
                "rope_parameters": {
                    "type": "default",
                    "rope_theta": 10000.0,
                    "partial_rotary_factor": 0.5,
                    "mrope_section": [2, 1, 1],
                    "mrope_interleaved": True,
                },
            }
        },
        {**_TOWER, "temporal_patch_size": 2, "num_position_embeddings": 16, "deepstack_visual_indexes": []},
        16,
    ),
}
_GEMMA: dict[str, VisionFamily] = {
    "gemma3": VisionFamily(
        {
            "model_type": "gemma3",
            "mm_tokens_per_image": 4,
            "text_config": {
                **_TEXT,
                "model_type": "gemma3_text",
                "query_pre_attn_scalar": 16,
                "mm_tokens_per_image": 4,
                "sliding_window": 32,
                "sliding_window_pattern": 2,
            },
            "vision_config": {**_SIGHT, "model_type": "siglip_vision_model"},
        },
        "<start_of_image>",
        ("<start_of_image>", "<end_of_image>", "<image_soft_token>"),
        {"image_token_index": "<image_soft_token>"},
        {
            "preprocessor_config.json": {**_PIXELS, "image_processor_type": "Gemma3ImageProcessor", "size": _SQUARE},
            "processor_config.json": {"processor_class": "Gemma3Processor", "image_seq_length": 4},
        },
        {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"},
    ),
    "gemma4": VisionFamily(
        {
            "model_type": "gemma4",
            "vision_soft_tokens_per_image": 70,
            "audio_config": None,
            "text_config": {
                **_TEXT,
                "model_type": "gemma4_text",
                "num_hidden_layers": 4,
                "num_kv_shared_layers": 2,
                "global_head_dim": 32,
                "hidden_size_per_layer_input": 16,
                "vocab_size_per_layer_input": 300,
                "use_double_wide_mlp": False,
                "sliding_window": 32,
                "layer_types": ["sliding_attention", "full_attention"] * 2,
            },
            "vision_config": {
                **_SIGHT,
                "model_type": "gemma4_vision",
                "num_key_value_heads": 2,
                "head_dim": 16,
                "global_head_dim": 16,
                "patch_size": 16,
                "position_embedding_size": 64,
                "pooling_kernel_size": 3,
            },
        },
        "<|image|>",
        ("<|image|>", "<|image>", "<image|>", "<|audio|>", "<|audio>", "<audio|>", "<|video|>"),
        {
            "image_token_id": "<|image|>",
            "boi_token_id": "<|image>",
            "eoi_token_id": "<image|>",
            "audio_token_id": "<|audio|>",
        },
        {
            "processor_config.json": {
                "image_processor": {**_PIXELS, "max_soft_tokens": 70, "patch_size": 16, "pooling_kernel_size": 3},
                "feature_extractor": {"feature_size": 32},
                "image_seq_length": 70,
            }
        },
        {
            "image_token": "<|image|>",
            "boi_token": "<|image>",
            "eoi_token": "<image|>",
            "audio_token": "<|audio|>",
            "boa_token": "<|audio>",
            "eoa_token": "<audio|>",
        },
    ),
    "paligemma": VisionFamily(
        {
            "model_type": "paligemma",
            "hidden_size": 64,
            "projection_dim": 64,
            "text_config": {
                **_TEXT,
                "model_type": "gemma2",
                "query_pre_attn_scalar": 16,
                "attn_logit_softcapping": 50.0,
                "final_logit_softcapping": 30.0,
            },
            "vision_config": {**_SIGHT, "model_type": "siglip_vision_model", "projection_dim": 64},
        },
        "<image>",
        ("<image>", "<bos>"),
        {"image_token_index": "<image>"},
        {
            "preprocessor_config.json": {
                **_PIXELS,
                "image_processor_type": "SiglipImageProcessor",
                "image_seq_length": 16,
                "size": _SQUARE,
            }
        },
        {"bos_token": "<bos>"},
        noise=0.2,
    ),
}
_OTHERS: dict[str, VisionFamily] = {
    "lfm2_vl": VisionFamily(
        {
            "model_type": "lfm2_vl",
            "downsample_factor": 2,
            "projector_hidden_size": 64,
            "text_config": {
                **_TEXT,
                "model_type": "lfm2",
                "norm_eps": 1e-6,
                "conv_L_cache": 3,
                "conv_bias": False,
                "block_dim": 64,
                "block_ff_dim": 96,
                "block_multiple_of": 16,
                "block_auto_adjust_ff_dim": False,
                "num_hidden_layers": 3,
                "layer_types": ["full_attention", "conv", "full_attention"],
            },
            "vision_config": {**_SIGHT, "model_type": "siglip2_vision_model", "patch_size": 16, "num_patches": 16},
        },
        "<image>",
        ("<image>", "<|image_start|>", "<|image_end|>", "<|img_thumbnail|>"),
        {"image_token_id": "<image>"},
        {
            "preprocessor_config.json": {
                **_PIXELS,
                "image_processor_type": "Lfm2VlImageProcessorFast",
                "encoder_patch_size": 16,
                "tile_size": 64,
                "min_image_tokens": 4,
                "max_image_tokens": 16,
                "max_num_patches": 64,
                "downsample_factor": 2,
            },
            "processor_config.json": {"processor_class": "Lfm2VlProcessor"},
        },
    ),
    "internvl_chat": VisionFamily(
        {
            "model_type": "internvl_chat",
            "downsample_ratio": 0.5,
            "force_image_size": 56,
            "max_dynamic_patch": 4,
            "use_thumbnail": True,
            "vision_feature_layer": -1,
            "llm_config": {**_TEXT, "model_type": "qwen2"},
            "vision_config": {**_SIGHT, "model_type": "intern_vit_6b"},
        },
        "<image>\n",
        ("<img>", "</img>", "<IMG_CONTEXT>"),
    ),
}
_TILES: JSON = {"do_pad": True, "image_grid_pinpoints": [[56, 112], [112, 56], [112, 112]]}

#: By the architecture that config.json names.
VISION_FAMILIES: dict[str, VisionFamily] = {
    **_QWEN,
    "idefics3": _idefics("idefics3", "Idefics3"),
    "smolvlm": _idefics("smolvlm", "SmolVLM"),
    **_GEMMA,
    "llava_next": _llava("llava_next", "mistral", "LlavaNextImageProcessor", _TILES),
    "pixtral": _pixtral("pixtral", {"model_type": "mistral"}, {}),
    "mistral3": _pixtral(
        "mistral3",
        {
            "model_type": "ministral3",
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": 4096,
                "llama_4_scaling_beta": 0.1,
            },
        },
        {"spatial_merge_size": 2},
    ),
    **_OTHERS,
}
#: mlx-vlm 0.7 loads these, and then fails at every picture.
BLIND_FAMILIES: dict[str, VisionFamily] = {"llava": _llava("llava", "llama", "CLIPImageProcessor", {})}
