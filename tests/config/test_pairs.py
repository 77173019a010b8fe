"""The pairs of `config init`: their numbers are those of real shapes, and every file that is written can be used."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
import yaml
from mlx import nn
from mlx.utils import tree_flatten

from periscope.config import estimated_budget, fitting, load, starter_file
from periscope.config.pairs import PAIRS, Checkpoint
from periscope.core import ModelKind
from periscope.engine.config import EngineConfig
from periscope.engine.loading.footprint import measure

GIB = 1024**3
_DTYPES = {mx.uint32: "U32", mx.bfloat16: "BF16", mx.float32: "F32"}
_4_BIT = {"group_size": 64, "bits": 4}
_LLAMA = {"vocab_size": 128256, "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "head_dim": 128}
_QWEN = {"vocab_size": 151936, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "num_key_value_heads": 8, "head_dim": 128}
_EXPERTS = {"norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": []}


def _layers(hidden: int, layers: int, mlp: int, heads: int, **others: Any) -> dict[str, Any]:
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "intermediate_size": mlp, "num_attention_heads": heads}
    return {**shape, "max_position_embeddings": 131072, "quantization": _4_BIT, "tie_word_embeddings": True, **others}


def _qwen_vl(hidden: int, layers: int, mlp: int, heads: int, vision: Mapping[str, Any], **others: Any) -> Any:
    text = _layers(hidden, layers, mlp, heads, **_QWEN, **others) | {"model_type": "qwen3_vl_text"}
    text["rope_scaling"] = {"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"}
    tower = {"model_type": "qwen3_vl", "out_hidden_size": hidden, "patch_size": 16, "spatial_merge_size": 2}
    tower |= {"num_heads": 16, "temporal_patch_size": 2, "in_channels": 3, "num_position_embeddings": 2304, **vision}
    ids = {"image_token_id": 151655, "video_token_id": 151656, "vision_start_token_id": 151652, "vocab_size": 151936}
    return {"model_type": "qwen3_vl", "text_config": text, "vision_config": tower, "quantization": _4_BIT, **ids}


_SMALL_TOWER = {"depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "deepstack_visual_indexes": [5, 11, 17]}
_LARGE_TOWER = {"depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "deepstack_visual_indexes": [8, 16, 24]}
#: config.json of each, as far as it decides about sizes.
SHAPES: dict[str, dict[str, Any]] = {
    "Llama-3.2-3B-Instruct-4bit": {
        "model_type": "llama",
        **_layers(3072, 28, 8192, 24, num_key_value_heads=8, **_LLAMA),
    },
    "Qwen3-4B-Instruct-2507-4bit": {"model_type": "qwen3", **_layers(2560, 36, 9728, 32, **_QWEN)},
    "Qwen3-14B-4bit": {"model_type": "qwen3", **_layers(5120, 40, 17408, 40, **_QWEN), "tie_word_embeddings": False},
    "Qwen3-30B-A3B-Instruct-2507-4bit": {
        "model_type": "qwen3_moe",
        **_layers(2048, 48, 6144, 32, **_QWEN, **_EXPERTS, num_experts=128, num_experts_per_tok=8),
        "num_key_value_heads": 4,
        "moe_intermediate_size": 768,
        "tie_word_embeddings": False,
    },
    "Qwen3-Next-80B-A3B-Instruct-4bit": {
        "model_type": "qwen3_next",
        **_layers(2048, 48, 5120, 16, **_QWEN, **_EXPERTS, num_experts=512, num_experts_per_tok=10),
        "num_key_value_heads": 2,
        "head_dim": 256,
        "moe_intermediate_size": 512,
        "tie_word_embeddings": False,
        "shared_expert_intermediate_size": 512,
        "full_attention_interval": 4,
        "partial_rotary_factor": 0.25,
        "linear_num_value_heads": 32,
        "linear_num_key_heads": 16,
        "linear_key_head_dim": 128,
        "linear_value_head_dim": 128,
        "linear_conv_kernel_dim": 4,
    },
    "SmolVLM2-500M-Video-Instruct-mlx": {
        "model_type": "smolvlm",
        "image_token_id": 49190,
        "scale_factor": 4,
        "vocab_size": 49280,
        "text_config": {
            "model_type": "llama",
            "vocab_size": 49280,
            "rms_norm_eps": 1e-5,
            "rope_theta": 100000,
            "num_key_value_heads": 5,
            "head_dim": 64,
            "max_position_embeddings": 8192,
            "hidden_size": 960,
            "num_hidden_layers": 32,
            "intermediate_size": 2560,
            "num_attention_heads": 15,
            "tie_word_embeddings": False,
        },
        "vision_config": {
            "model_type": "smolvlm_vision",
            "hidden_size": 768,
            "num_hidden_layers": 12,
            "num_channels": 3,
            "intermediate_size": 3072,
            "num_attention_heads": 12,
            "patch_size": 16,
            "image_size": 512,
        },
    },
    "Qwen3-VL-2B-Instruct-4bit": _qwen_vl(2048, 28, 6144, 16, _SMALL_TOWER),
    "Qwen3-VL-4B-Instruct-4bit": _qwen_vl(2560, 36, 9728, 32, _SMALL_TOWER),
    "Qwen3-VL-8B-Instruct-4bit": _qwen_vl(4096, 36, 12288, 32, _LARGE_TOWER)
    | {"text_config": {**_qwen_vl(4096, 36, 12288, 32, _LARGE_TOWER)["text_config"], "tie_word_embeddings": False}},
}


def _parameters(config: dict[str, Any], kind: ModelKind) -> Any:
    """The model's parameters, of which nothing is ever computed: their shapes and types are all that is read."""
    if kind is ModelKind.TEXT:
        library = import_module(f"mlx_lm.models.{config['model_type']}")
        model = library.Model(library.ModelArgs.from_dict(config))
    else:
        from mlx_vlm.utils import update_module_configs

        library = import_module(f"mlx_vlm.models.{config['model_type']}")
        parts = ["text", "vision", "perceiver", "projector", "audio"]
        model = library.Model(update_module_configs(library.ModelConfig.from_dict(config), library, config, parts))
    model.set_dtype(mx.bfloat16)
    by_itself = getattr(model, "quant_predicate", None) or (lambda _path, _module: True)

    def is_quantised(path: str, module: Any) -> Any:  # as the converters do: towers stay as they are
        fits = hasattr(module, "to_quantized") and module.weight.shape[-1] % 64 == 0
        return fits and "vision" not in path and by_itself(path, module)

    if "quantization" in config:
        nn.quantize(model, **_4_BIT, class_predicate=is_quantised)
    return model.parameters()


def _write(folder: Path, config: dict[str, Any], kind: ModelKind) -> Path:
    """A checkpoint without its numbers: a header, and a hole as large as the weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    header, end = {}, 0
    for name, array in tree_flatten(_parameters(config, kind)):
        offsets = [end, end + array.nbytes]
        header[name] = {"dtype": _DTYPES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
        end += array.nbytes
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


_CHECKPOINTS = {
    checkpoint.hf_id.split("/")[1]: (checkpoint, kind)
    for pair in PAIRS
    for checkpoint, kind in ((pair.text, ModelKind.TEXT), (pair.captioner, ModelKind.CAPTIONER))
}


@pytest.mark.parametrize("name", sorted(_CHECKPOINTS))
def test_the_numbers_are_what_the_server_will_measure(name: str, tmp_path: Path) -> None:
    """So no pair is recommended that the server then refuses to load. Within 2 %: libraries rename a tensor or two."""
    checkpoint, kind = _CHECKPOINTS[name]
    folder = _write(tmp_path / name, SHAPES[name], kind)
    measured = measure(str(folder), EngineConfig(), kind=kind)
    assert measured.weights_bytes == pytest.approx(checkpoint.weights_bytes, rel=0.02)
    assert measured.reserve_bytes == pytest.approx(checkpoint.reserve_bytes, rel=0.02)
    if kind is ModelKind.TEXT and "Next" not in name:
        assert checkpoint.token_bytes * 8192 == pytest.approx(measured.reserve_bytes, rel=0.02)


@pytest.mark.parametrize(
    ("memory_gib", "default"),
    [(4, "demo"), (8, "llama-3b"), (16, "qwen3-4b"), (32, "qwen3-14b"), (48, "qwen3-30b"), (96, "qwen3-next-80b")],
)
def test_a_file_for_each_size_of_mac_can_be_used(memory_gib: int, default: str, tmp_path: Path) -> None:
    """The largest pair that fits is the default model, both of it within the budget at the context that is written."""
    budget = estimated_budget(memory_gib * GIB)
    file = tmp_path / "models.yaml"
    file.write_text(starter_file(memory_gib * GIB, budget))
    config = load(file, env={})
    assert config.default_model.name == default
    assert config.default_model.preload
    pairs = {pair.name: pair for pair in fitting(budget)}
    for entry in yaml.safe_load(file.read_text())["models"]:
        pair = pairs.get(entry["name"])
        if pair is not None:
            context_bytes = entry["params"]["context_length"] * pair.text.token_bytes
            assert pair.total_bytes - pair.text.reserve_bytes + context_bytes <= budget


def test_the_shipped_file_names_macs_on_which_its_pairs_fit() -> None:
    """Nobody fetches 20 GB for a Mac of the size in the comment that then cannot hold them."""
    text = (Path(__file__).parents[2] / "models.yaml").read_text(encoding="utf-8")
    told = dict(re.findall(r"^  # (\d+) GB.*\n(?:  #.*\n)*  - name: (\S+)$", text, re.MULTILINE))
    assert set(told.values()) == {"llama-3b", "qwen3-4b", "qwen3-30b"}
    for memory_gib, name in told.items():
        assert name in {pair.name for pair in fitting(estimated_budget(int(memory_gib) * GIB))}


def test_pairs_are_in_the_order_of_their_sizes() -> None:
    """So that the last one that fits is the largest."""
    sizes = [pair.total_bytes for pair in PAIRS]
    assert sizes == sorted(sizes)
    assert all(isinstance(pair.text, Checkpoint) for pair in PAIRS)
