"""Cache sizes from the configs of real repositories; `families` compares them with the caches themselves."""

from __future__ import annotations

from typing import Any

import pytest

from periscope.engine.loading.kv_shape import KVShape, text_config_of
from periscope.engine.loading.loader import FALLBACK_CONTEXT_LENGTH, context_length_of

NUM_TOKENS = 8192
GEMMA_3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "hidden_size": 2560,
        "intermediate_size": 10240,
        "model_type": "gemma3_text",
        "num_hidden_layers": 34,
        "sliding_window": 1024,
    },
}
MINISTRAL_3_3B: dict[str, Any] = {
    "model_type": "mistral3",
    "text_config": {
        "model_type": "ministral3",
        "head_dim": 128,
        "hidden_size": 3072,
        "max_position_embeddings": 262144,
        "num_attention_heads": 32,
        "num_hidden_layers": 26,
        "num_key_value_heads": 8,
        "sliding_window": None,
    },
}
GPT_OSS_20B: dict[str, Any] = {
    "model_type": "gpt_oss",
    "head_dim": 64,
    "layer_types": ["sliding_attention", "full_attention"] * 12,
    "num_attention_heads": 64,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "sliding_window": 128,
}
DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "kv_lora_rank": 512,
    "num_attention_heads": 128,
    "num_hidden_layers": 61,
    "num_key_value_heads": 128,
    "qk_rope_head_dim": 64,
}
QWEN3_NEXT_80B: dict[str, Any] = {
    "model_type": "qwen3_next",
    "full_attention_interval": 4,
    "head_dim": 256,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 128,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_value_head_dim": 128,
    "num_attention_heads": 16,
    "num_hidden_layers": 48,
    "num_key_value_heads": 2,
}
LLAMA_4_SCOUT: dict[str, Any] = {
    "model_type": "llama4",
    "text_config": {
        "model_type": "llama4_text",
        "attention_chunk_size": 8192,
        "head_dim": 128,
        "num_attention_heads": 40,
        "num_hidden_layers": 48,
        "num_key_value_heads": 8,
    },
}


@pytest.mark.parametrize(
    ("config", "numbers"),
    [
        (GEMMA_3_4B, (5 * NUM_TOKENS + 29 * 1024) * 2 * 4 * 256),
        (MINISTRAL_3_3B, 26 * NUM_TOKENS * 2 * 8 * 128),
        (GPT_OSS_20B, (12 * NUM_TOKENS + 12 * 128) * 2 * 8 * 64),
        (DEEPSEEK_V3, 61 * NUM_TOKENS * (512 + 64)),
        (QWEN3_NEXT_80B, 12 * NUM_TOKENS * 2 * 2 * 256 + 36 * (32 * 128 * 128 + 3 * (2 * 16 * 128 + 32 * 128))),
        (LLAMA_4_SCOUT, 48 * NUM_TOKENS * 2 * 8 * 128),
    ],
)
def test_a_conversation_takes_what_the_family_keeps_of_it(config: dict[str, Any], numbers: int) -> None:
    """Windows are bounded, compressed states stay compressed, and linear attention has a state of fixed size."""
    shape = KVShape.of(config)
    assert shape is not None
    assert shape.nbytes(NUM_TOKENS, 2) == 2 * numbers


def test_chunked_layers_keep_one_chunk_at_most() -> None:
    """Beyond a chunk of Llama 4, three of four layers keep only the chunk and two blocks that are being filled."""
    shape = KVShape.of(LLAMA_4_SCOUT)
    assert shape is not None
    assert shape.nbytes(4 * NUM_TOKENS, 1) == (12 * 4 * NUM_TOKENS + 36 * (NUM_TOKENS + 512)) * 2 * 8 * 128


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"num_hidden_layers": 2},
        {"kv_lora_rank": 512} | {"num_hidden_layers": 2},
        DEEPSEEK_V3 | {"model_type": "new"},
    ],
)
def test_there_is_no_estimate_for_unknown_shapes(config: dict[str, Any]) -> None:
    """There is no estimate for unknown architectures with compressed states, nor for a config without sizes."""
    assert KVShape.of(config) is None


def test_defaults_of_a_family_are_known() -> None:
    """The configs of Gemma 3's larger models lack the context length and the heads."""
    assert context_length_of(GEMMA_3_4B, None) == 131072
    assert text_config_of(GEMMA_3_4B)["num_key_value_heads"] == 4
    assert context_length_of({}, None) == FALLBACK_CONTEXT_LENGTH


def test_the_text_model_s_own_context_counts() -> None:
    """The text model's own context length takes precedence over the wrapper's, which counts if it is the only one."""
    config = {"max_position_embeddings": 77, "text_config": {"max_position_embeddings": 4096}}
    assert context_length_of(config, None) == 4096
    assert context_length_of(config, 1024) == 1024
    assert context_length_of({"max_position_embeddings": 77, "text_config": {}}, None) == 77
