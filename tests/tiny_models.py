"""Tiny random-weight models made on the spot, for tests that need a model but no sense."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


_COMMON = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
}
#: model_type -> what its shape has beyond the common one. Caches: plain; state-space and plain; sliding and plain; in
#: chunks and plain, which mlx-lm cannot put side by side.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "lfm2": {
        "norm_eps": 1e-6,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_multiple_of": 16,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "block_ff_dim": 128,
        "full_attn_idxs": [1],
    },
    "gemma3_text": {"sliding_window": 64, "sliding_window_pattern": 2, "query_pre_attn_scalar": 16},
    "llama4": {
        "num_hidden_layers": 4,
        "attention_bias": False,
        "attention_chunk_size": 96,
        "interleave_moe_layer_step": 64,
        "intermediate_size_mlp": 128,
        "num_experts_per_tok": 1,
        "num_local_experts": 2,
        "use_qk_norm": True,
    },
}


def write_text_model(
    folder: Path,
    *,
    seed: int = 0,
    context_length: int = 2048,
    chat_template: str = CHAT_TEMPLATE,
    model_type: str = "qwen3",
    num_layers: int | None = None,
    head_dim: int = 16,
) -> Path:
    """Small layers of a known shape with a byte-level tokenizer: loads in milliseconds, says nonsense."""
    folder.mkdir(parents=True, exist_ok=True)
    vocab_size = write_tokenizer(folder, chat_template)
    config = _COMMON | SHAPES[model_type]
    config |= {
        "model_type": model_type,
        "num_hidden_layers": num_layers or config["num_hidden_layers"],
        "head_dim": head_dim,
        "vocab_size": vocab_size,
        "max_position_embeddings": context_length,
        "eos_token_id": 257,
    }
    if model_type == "llama4":  # the loaders read the nested one, transformers' tokenizer the outer one
        config["text_config"] = config | {"rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(config))
    mx.random.seed(seed)
    module = importlib.import_module(f"mlx_lm.models.{model_type}")
    model = module.Model(module.ModelArgs.from_dict(config))
    noisy = [(name, mx.random.normal(array.shape) * 0.3) for name, array in tree_flatten(model.parameters())]
    model.update(tree_unflatten(noisy))
    mx.eval(model.parameters())
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())), {"format": "mlx"})
    return folder


def write_tokenizer(folder: Path, chat_template: str = CHAT_TEMPLATE, special_tokens: tuple[str, ...] = ()) -> int:
    """A byte-level tokenizer with ChatML's tokens and these; returns how many tokens it knows."""
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {char: number for number, char in enumerate(alphabet)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", *special_tokens])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "chat_template": chat_template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()
