"""The text architectures that people run on Macs, a few layers each: what their repositories' config.json say.

Each is written as the real repository writes it: nested or flat, with the rope, windows, experts and state-space layers
of its family. Only sizes are small. `layouts.py` knows the names under which each stores its weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.engine.families import layouts
from tests.engine.families.layouts import Layout

CONTEXT_LENGTH = 2048
_EOS = 257

_COMMON: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "eos_token_id": _EOS,
}
_LINEAR_ATTENTION: dict[str, Any] = {
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_value_head_dim": 16,
}


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        config: config.json without the vocabulary's size.
        layout: from mlx-lm's names of the loaded weights to those that the original repository stores.
        dropped: name and shape of what the repository holds beside the text model.
        is_batched: mlx-lm can put the caches of several requests side by side.
    """

    config: Mapping[str, Any]
    layout: Layout = layouts.as_loaded
    dropped: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    is_batched: bool = True

    def config_for(self, vocab_size: int) -> dict[str, Any]:
        """With the vocabulary's size where each loader looks for it."""
        config = dict(self.config) | {"vocab_size": vocab_size}
        if "text_config" in config:
            config["text_config"] = dict(config["text_config"]) | {"vocab_size": vocab_size}
        if config["model_type"] == "gemma4":
            config["text_config"]["vocab_size_per_layer_input"] = vocab_size
        return config

    @property
    def text_config(self) -> Mapping[str, Any]:
        """The part that tells the text model's shape."""
        nested: Mapping[str, Any] = self.config.get("text_config", self.config)
        return nested


def _flat(model_type: str, architecture: str, **changes: Any) -> dict[str, Any]:
    return _COMMON | {"model_type": model_type, "architectures": [architecture]} | changes


def _nested(model_type: str, architecture: str, text_type: str, **changes: Any) -> dict[str, Any]:
    """As repositories of models that see pictures have it: the text model is one part of several."""
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "eos_token_id": _EOS,
        "text_config": _COMMON | {"model_type": text_type} | changes,
        "vision_config": {"hidden_size": 32, "num_hidden_layers": 1},
    }


FAMILIES: dict[str, Family] = {
    "qwen3": Family(
        _flat(
            "qwen3",
            "Qwen3ForCausalLM",
            attention_bias=False,
            head_dim=16,
            rope_scaling=None,
            sliding_window=None,
            tie_word_embeddings=True,
            use_sliding_window=False,
        )
    ),
    "qwen3_moe": Family(
        _flat(
            "qwen3_moe",
            "Qwen3MoeForCausalLM",
            decoder_sparse_step=1,
            head_dim=16,
            mlp_only_layers=[],
            moe_intermediate_size=64,
            norm_topk_prob=True,
            num_experts=4,
            num_experts_per_tok=2,
            rope_scaling=None,
            tie_word_embeddings=False,
        ),
        layouts.experts_one_by_one,
    ),
    "qwen3_next": Family(
        _flat(
            "qwen3_next",
            "Qwen3NextForCausalLM",
            num_hidden_layers=4,
            decoder_sparse_step=1,
            full_attention_interval=4,
            head_dim=16,
            mlp_only_layers=[],
            moe_intermediate_size=64,
            norm_topk_prob=True,
            num_experts=4,
            num_experts_per_tok=2,
            partial_rotary_factor=0.25,
            rope_scaling=None,
            shared_expert_intermediate_size=64,
            tie_word_embeddings=False,
            **_LINEAR_ATTENTION,
        ),
        layouts.qwen3_next,
        {"mtp.fc.weight": (64, 128), "mtp.layers.0.self_attn.q_proj.weight": (128, 64)},
    ),
    "qwen3_5": Family(
        _nested(
            "qwen3_5",
            "Qwen3_5ForConditionalGeneration",
            "qwen3_5_text",
            num_hidden_layers=4,
            attention_bias=False,
            full_attention_interval=4,
            head_dim=16,
            layer_types=["linear_attention", "linear_attention", "linear_attention", "full_attention"],
            rope_parameters={
                "mrope_interleaved": True,
                "mrope_section": [1, 1, 0],
                "partial_rotary_factor": 0.25,
                "rope_theta": 10000000,
                "rope_type": "default",
            },
            tie_word_embeddings=True,
            **_LINEAR_ATTENTION,
        ),
        layouts.qwen3_5,
        {"model.visual.patch_embed.proj.weight": (32, 3, 2, 4, 4), "mtp.fc.weight": (64, 128)},
    ),
    "llama3": Family(
        _flat(
            "llama",
            "LlamaForCausalLM",
            attention_bias=False,
            head_dim=16,
            mlp_bias=False,
            rope_scaling={
                "factor": 32.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
            },
            rope_theta=500000.0,
            tie_word_embeddings=True,
        )
    ),
    "llama4": Family(
        _nested(
            "llama4",
            "Llama4ForConditionalGeneration",
            "llama4_text",
            num_hidden_layers=4,
            attention_bias=False,
            attention_chunk_size=96,
            attn_scale=0.1,
            attn_temperature_tuning=True,
            floor_scale=64,
            head_dim=16,
            interleave_moe_layer_step=2,
            intermediate_size=64,
            intermediate_size_mlp=128,
            num_experts_per_tok=1,
            num_local_experts=4,
            rope_scaling={
                "factor": 16.0,
                "high_freq_factor": 1.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
            },
            use_qk_norm=True,
        ),
        layouts.llama4,
        {"vision_model.class_embedding": (32,), "multi_modal_projector.linear_1.weight": (64, 32)},
        is_batched=False,
    ),
    "mistral": Family(
        _flat(
            "mistral",
            "MistralForCausalLM",
            head_dim=16,
            rope_theta=1000000.0,
            sliding_window=None,
            tie_word_embeddings=False,
        )
    ),
    "ministral3": Family(
        _nested(
            "mistral3",
            "Mistral3ForConditionalGeneration",
            "ministral3",
            head_dim=16,
            rope_parameters={
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 16.0,
                "llama_4_scaling_beta": 0.1,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 1000000.0,
                "rope_type": "yarn",
                "type": "yarn",
            },
            sliding_window=None,
            tie_word_embeddings=True,
        ),
        dropped={
            "vision_tower.patch_conv.weight": (32, 3, 14, 14),
            "vision_tower.transformer.layers.0.attention.q_proj.weight": (32, 32),
            "multi_modal_projector.linear_1.weight": (64, 32),
        },
    ),
    "gemma3_text": Family(
        _flat(
            "gemma3_text",
            "Gemma3ForCausalLM",
            num_hidden_layers=4,
            num_key_value_heads=1,
            head_dim=32,
            query_pre_attn_scalar=32,
            rope_local_base_freq=10000,
            rope_scaling=None,
            rope_theta=1000000,
            sliding_window=64,
            sliding_window_pattern=2,
        )
    ),
    "gemma3": Family(
        _nested(
            "gemma3",
            "Gemma3ForConditionalGeneration",
            "gemma3_text",
            num_hidden_layers=4,
            num_key_value_heads=2,
            head_dim=16,
            query_pre_attn_scalar=16,
            rope_scaling={"factor": 8.0, "rope_type": "linear"},
            sliding_window=64,
            sliding_window_pattern=2,
        ),
        dropped={
            "vision_tower.vision_model.embeddings.patch_embedding.weight": (32, 3, 14, 14),
            "multi_modal_projector.mm_input_projection_weight": (32, 64),
        },
    ),
    "gemma4": Family(
        _nested(
            "gemma4",
            "Gemma4ForConditionalGeneration",
            "gemma4_text",
            num_hidden_layers=5,
            num_key_value_heads=1,
            attention_k_eq_v=False,
            enable_moe_block=False,
            final_logit_softcapping=30.0,
            global_head_dim=32,
            head_dim=16,
            hidden_size_per_layer_input=32,
            layer_types=[
                "sliding_attention",
                "sliding_attention",
                "full_attention",
                "sliding_attention",
                "full_attention",
            ],
            num_kv_shared_layers=2,
            rope_parameters={
                "full_attention": {
                    "partial_rotary_factor": 0.25,
                    "rope_theta": 1000000.0,
                    "rope_type": "proportional",
                },
                "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
            },
            sliding_window=64,
            tie_word_embeddings=True,
            use_double_wide_mlp=True,
        ),
        layouts.gemma4,
        {
            "model.vision_tower.patch_embedder.input_proj.weight": (32, 48),
            "model.audio_tower.output_proj.weight": (32, 32),
            "model.embed_vision.embedding_projection.weight": (64, 32),
            "model.embed_audio.embedding_projection.weight": (64, 32),
            "model.language_model.layers.3.self_attn.k_proj.weight": (16, 64),
            "model.language_model.layers.3.self_attn.v_proj.weight": (16, 64),
            "model.language_model.layers.4.self_attn.k_norm.weight": (32,),
        },
    ),
    "gemma4_moe": Family(
        _nested(
            "gemma4",
            "Gemma4ForConditionalGeneration",
            "gemma4_text",
            num_hidden_layers=4,
            num_key_value_heads=2,
            attention_k_eq_v=True,
            enable_moe_block=True,
            final_logit_softcapping=30.0,
            global_head_dim=32,
            head_dim=16,
            hidden_size_per_layer_input=0,
            layer_types=["sliding_attention", "full_attention", "sliding_attention", "full_attention"],
            moe_intermediate_size=64,
            num_experts=4,
            num_global_key_value_heads=1,
            num_kv_shared_layers=0,
            rope_parameters={
                "full_attention": {
                    "partial_rotary_factor": 0.25,
                    "rope_theta": 1000000.0,
                    "rope_type": "proportional",
                },
                "sliding_attention": {"rope_theta": 10000.0, "rope_type": "default"},
            },
            sliding_window=64,
            tie_word_embeddings=True,
            top_k_experts=2,
            use_double_wide_mlp=False,
        ),
        layouts.gemma4,
        {
            "model.vision_tower.patch_embedder.input_proj.weight": (32, 48),
            "model.vision_embedder.proj.weight": (64, 32),
        },
    ),
    "gpt_oss": Family(
        _flat(
            "gpt_oss",
            "GptOssForCausalLM",
            attention_bias=True,
            head_dim=16,
            intermediate_size=64,
            layer_types=["sliding_attention", "full_attention"],
            num_experts_per_tok=2,
            num_local_experts=4,
            rope_scaling={
                "beta_fast": 32.0,
                "beta_slow": 1.0,
                "factor": 32.0,
                "original_max_position_embeddings": 64,
                "rope_type": "yarn",
                "truncate": False,
            },
            rope_theta=150000,
            sliding_window=64,
            swiglu_limit=7.0,
            tie_word_embeddings=False,
        )
    ),
    "glm4": Family(
        _flat(
            "glm4",
            "Glm4ForCausalLM",
            attention_bias=True,
            head_dim=16,
            partial_rotary_factor=0.5,
            tie_word_embeddings=False,
        )
    ),
    "glm4_moe": Family(
        _flat(
            "glm4_moe",
            "Glm4MoeForCausalLM",
            attention_bias=True,
            first_k_dense_replace=1,
            head_dim=16,
            moe_intermediate_size=64,
            n_group=1,
            n_routed_experts=4,
            n_shared_experts=1,
            norm_topk_prob=True,
            num_experts_per_tok=2,
            num_nextn_predict_layers=1,
            partial_rotary_factor=0.5,
            rope_scaling=None,
            routed_scaling_factor=1.0,
            tie_word_embeddings=False,
            topk_group=1,
            use_qk_norm=True,
        ),
        layouts.experts_one_by_one,
        {"model.layers.2.eh_proj.weight": (64, 128), "model.layers.2.self_attn.q_proj.weight": (64, 64)},
    ),
    "deepseek_v3": Family(
        _flat(
            "deepseek_v3",
            "DeepseekV3ForCausalLM",
            first_k_dense_replace=1,
            kv_lora_rank=64,
            moe_intermediate_size=64,
            moe_layer_freq=1,
            n_group=2,
            n_routed_experts=4,
            n_shared_experts=1,
            norm_topk_prob=True,
            num_experts_per_tok=2,
            num_key_value_heads=4,
            num_nextn_predict_layers=1,
            q_lora_rank=64,
            qk_nope_head_dim=32,
            qk_rope_head_dim=16,
            rope_scaling={
                "beta_fast": 32,
                "beta_slow": 1,
                "factor": 40,
                "mscale": 1.0,
                "mscale_all_dim": 1.0,
                "original_max_position_embeddings": 64,
                "type": "yarn",
            },
            routed_scaling_factor=2.5,
            scoring_func="sigmoid",
            tie_word_embeddings=False,
            topk_group=1,
            topk_method="noaux_tc",
            v_head_dim=32,
        ),
        layouts.deepseek_v3,
        {"model.layers.61.eh_proj.weight": (64, 128)},
    ),
    "phi4": Family(
        _flat(
            "phi3",
            "Phi3ForCausalLM",
            attention_bias=False,
            original_max_position_embeddings=64,
            partial_rotary_factor=0.75,
            rope_scaling={"long_factor": [2.0] * 6, "short_factor": [1.0] * 6, "type": "longrope"},
            sliding_window=262144,
            tie_word_embeddings=True,
        )
    ),
    "granite_hybrid": Family(
        _flat(
            "granitemoehybrid",
            "GraniteMoeHybridForCausalLM",
            num_hidden_layers=4,
            attention_bias=False,
            attention_multiplier=0.0625,
            embedding_multiplier=12,
            intermediate_size=64,
            layer_types=["mamba", "mamba", "attention", "mamba"],
            logits_scaling=6,
            mamba_chunk_size=256,
            mamba_conv_bias=True,
            mamba_d_conv=4,
            mamba_d_head=16,
            mamba_d_state=16,
            mamba_expand=2,
            mamba_n_groups=1,
            mamba_n_heads=8,
            mamba_proj_bias=False,
            num_experts_per_tok=2,
            num_local_experts=4,
            position_embedding_type="nope",
            residual_multiplier=0.22,
            shared_intermediate_size=128,
            tie_word_embeddings=True,
        ),
        layouts.granite_hybrid,
        {"lm_head.weight": (258, 64)},
    ),
    "granite_dense": Family(
        _flat(
            "granitemoehybrid",
            "GraniteMoeHybridForCausalLM",
            attention_bias=False,
            attention_multiplier=0.0625,
            embedding_multiplier=12,
            layer_types=["attention", "attention"],
            logits_scaling=6,
            num_experts_per_tok=0,
            num_local_experts=0,
            position_embedding_type="rope",
            residual_multiplier=0.22,
            shared_intermediate_size=128,
            tie_word_embeddings=True,
        ),
        layouts.granite_hybrid,
    ),
}

#: Architectures whose caches can be put side by side, but whose models reckon with one position for all rows.
ONE_POSITION: dict[str, Family] = {
    "llama_dynamic": Family(
        _flat(
            "llama",
            "LlamaForCausalLM",
            rope_scaling={"factor": 2.0, "type": "dynamic"},
            tie_word_embeddings=True,
        ),
        is_batched=False,
    ),
    "gpt_bigcode": Family(
        {
            "model_type": "gpt_bigcode",
            "architectures": ["GPTBigCodeForCausalLM"],
            "eos_token_id": _EOS,
            "layer_norm_epsilon": 1e-5,
            "multi_query": True,
            "n_embd": 64,
            "n_head": 4,
            "n_inner": 128,
            "n_layer": 2,
            "n_positions": CONTEXT_LENGTH,
        },
        is_batched=False,
    ),
}
