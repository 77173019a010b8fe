"""Tiny embedding models with random weights, in folders as they come from the hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.models import gemma3_text, qwen3
from mlx_vlm.models import bert, modernbert, xlm_roberta
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from periscope.engine.embedding.nomic import NomicBert, NomicBertArgs

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
VOCAB_SIZE = 64
SIZE = 32

_ENCODER = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": SIZE,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
_DECODER = _ENCODER | {"head_dim": 8, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 10000.0}
CONFIGS: Mapping[str, dict[str, Any]] = {
    "bert": _ENCODER | {"model_type": "bert", "architectures": ["BertModel"], "hidden_act": "gelu"},
    "xlm-roberta": _ENCODER
    | {"model_type": "xlm-roberta", "architectures": ["XLMRobertaModel"], "pad_token_id": 0, "hidden_act": "gelu"},
    "modernbert": _ENCODER
    | {"model_type": "modernbert", "architectures": ["ModernBertModel"], "hidden_activation": "gelu"},
    "nomic_bert": {
        "model_type": "nomic_bert",
        "architectures": ["NomicBertModel"],
        "vocab_size": VOCAB_SIZE,
        "n_embd": SIZE,
        "n_head": 4,
        "n_inner": 48,
        "n_layer": 2,
        "n_positions": 128,
        "activation_function": "swiglu",
    },
    "qwen3": _DECODER | {"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "tie_word_embeddings": True},
    "gemma3_text": _DECODER
    | {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3TextModel"],
        "use_bidirectional_attention": True,
        "query_pre_attn_scalar": 8,
        "sliding_window": 8,
        "sliding_window_pattern": 2,
    },
}


def _network(config: dict[str, Any]) -> Any:
    match config["model_type"]:
        case "qwen3":
            return qwen3.Model(qwen3.ModelArgs.from_dict(config))
        case "gemma3_text":
            return gemma3_text.Model(gemma3_text.ModelArgs.from_dict(config))
        case "nomic_bert":
            return NomicBert(NomicBertArgs.from_dict(config))
        case name:
            family = {"bert": bert, "xlm-roberta": xlm_roberta, "modernbert": modernbert}[name]
            return family.Model(family.ModelConfig.from_dict(config))


def write_model(
    folder: Path,
    family: str,
    *,
    pooling: str | None = "mean",
    is_normalized: bool = True,
    dense: int | None = None,
    prefix: str | None = None,
    prompts: Mapping[str, str] | None = None,
    **config: Any,
) -> Path:
    """Write weights (float32), configuration, tokenizer and the files of sentence-transformers into `folder`.

    Args:
        pooling: as sentence-transformers spells it; None = none of its files.
        dense: outputs of a Dense module after the pooling.
        prefix: is taken off the names of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = CONFIGS[family] | config
    (folder / "config.json").write_text(json.dumps(settings))
    network = _network(settings)
    mx.random.seed(7)
    weights: dict[str, mx.array] = {
        name: array if "norm" in name.lower() or name.endswith("emb_ln.weight") else mx.random.normal(array.shape) * 0.3
        for name, array in tree_flatten(network.parameters())
        if not name.startswith("lm_head")
    }
    if prefix is not None:
        weights = {name.removeprefix(prefix): array for name, array in weights.items()}
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    _write_tokenizer(folder)
    if pooling is not None:
        _write_modules(folder, pooling, is_normalized=is_normalized, dense=dense, prompts=prompts or {})
    return folder


def _write_tokenizer(folder: Path) -> None:
    """A letter is a token, capital letters too; a text stands between [CLS] and [SEP]."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *LETTERS, " "))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token of text
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _write_modules(
    folder: Path, pooling: str, *, is_normalized: bool, dense: int | None, prompts: Mapping[str, str]
) -> None:
    names = ["Transformer", "Pooling", *(["Dense"] if dense else []), *(["Normalize"] if is_normalized else [])]
    modules = [
        {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "", "type": f"a.models.{name}"}
        for index, name in enumerate(names)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    modes = {f"pooling_mode_{mode}": mode.startswith(pooling) for mode in ("cls_token", "mean_tokens", "lasttoken")}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": SIZE, **modes}))
    told = {"prompts": dict(prompts), "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(told))
    if dense:
        (folder / "2_Dense").mkdir(exist_ok=True)
        settings = {"in_features": SIZE, "out_features": dense, "bias": False, "activation_function": "a.Identity"}
        (folder / "2_Dense" / "config.json").write_text(json.dumps(settings))
        weight = {"linear.weight": mx.random.normal((dense, SIZE))}
        mx.save_safetensors(str(folder / "2_Dense" / "model.safetensors"), weight)
