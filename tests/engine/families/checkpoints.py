"""Random-weight checkpoints of the families, written as their repositories are; made on the spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm.utils import _get_classes, quantize_model

from tests.engine.families.shapes import Family
from tests.tiny_models import write_tokenizer

GROUP_SIZE = 32


def write_checkpoint(folder: Path, family: Family, *, seed: int = 0) -> Path:
    """In float32 and under the names of the original repository, with whatever else that holds."""
    config = family.config_for(write_tokenizer(folder))
    weights = family.layout(_noise(_model_of(config), seed))
    weights |= {name: mx.ones(shape) for name, shape in family.dropped.items()}
    _save(folder, weights, config)
    return folder


def write_quantised(folder: Path, family: Family, *, seed: int = 0, dtype: mx.Dtype = mx.float32) -> Path:
    """In 4 bits, by mlx-lm's own conversion, as the repositories that people download for their Macs.

    Args:
        dtype: of what is not quantised, and of the computation.
    """
    config = family.config_for(write_tokenizer(folder))
    model = _model_of(config)
    noise = {name: array.astype(dtype) for name, array in _noise(model, seed).items()}
    model.update(tree_unflatten(list(noise.items())))
    model, config = quantize_model(model, config, GROUP_SIZE, 4)
    _save(folder, dict(tree_flatten(model.parameters())), config)
    return folder


def stored_weights(folder: Path) -> dict[str, mx.array]:
    """What the folder's file holds, by name."""
    return cast("dict[str, mx.array]", mx.load(str(folder / "model.safetensors")))


def _model_of(config: dict[str, Any]) -> Any:
    model_class, args_class = _get_classes(config)
    model = model_class(args_class.from_dict(json.loads(json.dumps(config))))
    if config["model_type"].startswith("gemma3"):  # tied when the checkpoint holds no head
        (model if config["model_type"] == "gemma3_text" else model.language_model).sanitize({})
    return model


def _noise(model: Any, seed: int) -> dict[str, mx.array]:
    """Values that no two of are alike, so that no two logits are."""
    mx.random.seed(seed)
    return {name: mx.random.normal(array.shape) * 0.3 for name, array in tree_flatten(model.parameters())}


def _save(folder: Path, weights: dict[str, mx.array], config: dict[str, Any]) -> None:
    mx.eval(list(weights.values()))
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps(config))
