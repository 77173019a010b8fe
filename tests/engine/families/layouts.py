"""How each family's repository stores what mlx-lm holds: the inverse of the `sanitize` of its models.

A layout takes the weights by the names they have once loaded, and gives them by the names they have on the hub.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeAlias

import mlx.core as mx

Weights: TypeAlias = dict[str, mx.array]
Layout: TypeAlias = Callable[[Mapping[str, mx.array]], Weights]

_NORMS = (
    *("input_layernorm.weight", "post_attention_layernorm.weight", "model.norm.weight"),
    *("q_norm.weight", "k_norm.weight"),
)


def as_loaded(weights: Mapping[str, mx.array]) -> Weights:
    """Most families: nothing is renamed."""
    return dict(weights)


def experts_one_by_one(weights: Mapping[str, mx.array]) -> Weights:
    """Each expert's matrices by themselves, as PyTorch's modules hold them."""
    stored = {}
    for name, array in weights.items():
        match = re.fullmatch(r"(.*)\.switch_mlp\.(\w+)\.weight", name)
        if match is None:
            stored[name] = array
            continue
        stored |= {f"{match[1]}.experts.{number}.{match[2]}.weight": part for number, part in enumerate(array)}
    return stored


def qwen3_next(weights: Mapping[str, mx.array]) -> Weights:
    """Norms are stored as what they differ from 1, convolutions channels first."""
    return {name: _as_in_qwen3_next(name, array) for name, array in experts_one_by_one(weights).items()}


def _as_in_qwen3_next(name: str, array: mx.array) -> mx.array:
    if name.endswith("conv1d.weight"):
        return array.moveaxis(2, 1)
    return array - 1.0 if name.endswith(_NORMS) else array


def qwen3_5(weights: Mapping[str, mx.array]) -> Weights:
    """As Qwen3-Next, inside a model that also sees."""
    renamed = {name.replace("language_model.model.", "model.language_model."): array for name, array in weights.items()}
    norms = {name: array - 1.0 for name, array in renamed.items() if name.endswith("language_model.norm.weight")}
    return qwen3_next(renamed) | norms


def llama4(weights: Mapping[str, mx.array]) -> Weights:
    """Experts in one array, gate and up side by side, inputs first."""
    return _fused_experts(weights, _beside_each_other)


def gemma4(weights: Mapping[str, mx.array]) -> Weights:
    """Experts in one array, gate above up; the text model is one part of `model`."""
    renamed = {
        name.replace("language_model.model.", "model.language_model.").replace(".switch_glu.", "."): array
        for name, array in weights.items()
    }
    return _fused_experts(renamed, _above_each_other)


def _beside_each_other(*matrices: mx.array) -> mx.array:
    return mx.concatenate([matrix.swapaxes(1, 2) for matrix in matrices], axis=-1)


def _above_each_other(*matrices: mx.array) -> mx.array:
    return mx.concatenate(list(matrices), axis=-2)


def _fused_experts(weights: Mapping[str, mx.array], fuse: Callable[..., mx.array]) -> Weights:
    stored = {}
    for name, array in weights.items():
        match = re.fullmatch(r"(.*\.experts)\.(gate|up|down)_proj\.weight", name)
        if match is None:
            stored[name] = array
        elif match[2] == "gate":
            stored[f"{match[1]}.gate_up_proj"] = fuse(array, weights[f"{match[1]}.up_proj.weight"])
        elif match[2] == "down":
            stored[f"{match[1]}.down_proj"] = fuse(array)
    return stored


def deepseek_v3(weights: Mapping[str, mx.array]) -> Weights:
    """What expands the compressed states to keys and to values is one matrix, head by head."""
    stored = {}
    for name, array in experts_one_by_one(weights).items():
        if name.endswith("embed_q.weight"):
            values = weights[name.replace("embed_q", "unembed_out")]
            both = mx.concatenate([array.swapaxes(-1, -2), values], axis=1)
            stored[name.replace("embed_q", "kv_b_proj")] = both.reshape(-1, both.shape[-1])
        elif not name.endswith("unembed_out.weight"):
            stored[name] = array
    return stored


def granite_hybrid(weights: Mapping[str, mx.array]) -> Weights:
    """Gate and up in one matrix, of the experts and of models without; convolutions channels first."""
    stored = {}
    for name, array in weights.items():
        match = re.fullmatch(r"(.*\.)(?:(block_sparse_moe)\.switch_mlp|mlp)\.(gate|up|down)_proj\.weight", name)
        if name.endswith("conv1d.weight"):
            stored[name] = array.moveaxis(2, 1)
        elif match is None:
            stored[name] = array
        elif match[3] == "gate":
            both = mx.concatenate([array, weights[name.replace("gate_proj", "up_proj")]], axis=-2)
            stored[f"{match[1]}{match[2] or 'shared_mlp'}.input_linear.weight"] = both
        elif match[3] == "down":
            stored[f"{match[1]}{match[2] or 'shared_mlp'}.output_linear.weight"] = array
    return stored
