"""Writes the trained captioner as mlx-vlm reads it: weights, configuration, tokenizer, processor."""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from training.captioner import grammar
from training.captioner.data import MAX_PIXELS, MERGE, MIN_PIXELS, PATCH_PX
from training.captioner.model import Captioner, Dimensions
from training.captioner.pictures import Wish, draw_picture

IMAGE_TOKEN = "<|image_pad|>"  # noqa: S105 - a vocabulary entry
END_TOKEN = "<|im_end|>"  # noqa: S105 - a vocabulary entry
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    END_TOKEN,
    "<|vision_start|>",
    "<|vision_end|>",
    IMAGE_TOKEN,
    "<|video_pad|>",
)
BEFORE_IMAGE = "<|im_start|>user\n<|vision_start|>"
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') or 'image' in part or 'image_url' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- for part in message['content'] -%}"
    "{%- if 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def after_image(prompt: str) -> str:
    """The rendered chat from the image's end to the start of the answer."""
    return f"<|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"


def train_tokenizer() -> Tokenizer:
    """Byte-level BPE in which each word of the grammar and each digit is one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?[A-Za-z]+| ?[^A-Za-z0-9\s]+|[0-9]|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = (*grammar.COLOURS, *grammar.KINDS, "small", "medium", "large", "orange", "user", "assistant")
    corpus = [" ".join(("", *words)), "user", "assistant", "system", grammar.COMPLEX_CAPTION]
    corpus += [grammar.CAPTION_PROMPT, *grammar.OTHER_PROMPTS]
    for category in ("one", "two", "three", "number", "nothing"):
        corpus += [draw_picture(seed, Wish(category)).caption for seed in range(200)]
    tokenizer.train_from_iterator(corpus, trainer)
    return tokenizer


def mlx_weights(model: Captioner) -> dict[str, np.ndarray]:
    """The parameters under mlx-vlm's names, float32; the patch projection becomes a 3-D convolution."""
    weights = {}
    for name, tensor in model.state_dict().items():
        value = tensor.detach().float().contiguous()
        if name == "vision_tower.patch_embed.weight":
            value = value.view(-1, 3, PATCH_PX, PATCH_PX).permute(0, 2, 3, 1)[:, None].contiguous()
        weights[name.replace("patch_embed.", "patch_embed.proj.")] = value.numpy()
    return weights


def model_config(d: Dimensions, tokenizer: Tokenizer) -> dict[str, object]:
    """The content of config.json."""
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL_TOKENS}
    return {
        "architectures": ["Qwen3VLForConditionalGeneration"],
        "model_type": "qwen3_vl",
        "dtype": "float32",
        "tie_word_embeddings": True,
        "vocab_size": d.vocab_size,
        "image_token_id": ids[IMAGE_TOKEN],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "eos_token_id": [ids[END_TOKEN], ids["<|endoftext|>"]],
        "pad_token_id": ids["<|endoftext|>"],
        "text_config": {
            "model_type": "qwen3_vl_text",
            "vocab_size": d.vocab_size,
            "hidden_size": d.hidden,
            "intermediate_size": d.text_mlp,
            "num_hidden_layers": d.text_layers,
            "num_attention_heads": d.text_heads,
            "num_key_value_heads": d.text_kv_heads,
            "head_dim": d.head_dim,
            "rms_norm_eps": d.eps,
            "rope_theta": d.rope_theta,
            "rope_scaling": {"type": "default", "mrope_section": list(d.mrope_section)},
            "max_position_embeddings": 2048,
            "hidden_act": "silu",
            "attention_bias": False,
            "tie_word_embeddings": True,
        },
        "vision_config": {
            "model_type": "qwen3_vl",
            "depth": d.vision_layers,
            "hidden_size": d.hidden,
            "intermediate_size": d.vision_mlp,
            "out_hidden_size": d.hidden,
            "num_heads": d.vision_heads,
            "in_channels": 3,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 1,
            "num_position_embeddings": d.positions_per_side**2,
            "deepstack_visual_indexes": [],
        },
    }


def _processor_config() -> dict[str, object]:
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen3VLProcessor",
        "patch_size": PATCH_PX,
        "temporal_patch_size": 1,
        "merge_size": MERGE,
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "do_convert_rgb": True,
    }


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": END_TOKEN,
        "pad_token": "<|endoftext|>",
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


def export(model: Captioner, tokenizer: Tokenizer, out: Path) -> None:
    """Writes every file into out; each file appears whole (written beside it, then renamed)."""
    config = model_config(model.dimensions, tokenizer)
    generation = {"eos_token_id": config["eos_token_id"], "pad_token_id": config["pad_token_id"]}
    texts = {
        "config.json": config,
        "generation_config.json": {**generation, "do_sample": False},
        "preprocessor_config.json": _processor_config(),
        "tokenizer_config.json": _tokenizer_config(),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in texts.items():
        unfinished = out / f".{name}"
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
        unfinished.rename(out / name)
    tokenizer.save(str(out / ".tokenizer.json"))
    (out / ".tokenizer.json").rename(out / "tokenizer.json")
    with torch.no_grad():
        save_file(mlx_weights(model), out / ".weights", metadata={"format": "mlx"})
    (out / ".weights").rename(out / "model.safetensors")
