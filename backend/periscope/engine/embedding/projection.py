"""From hidden states to vectors: pooling, linear layers, unit length. Always in float32. Worker thread only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
from mlx import nn

from periscope.core import Pooling
from periscope.engine.loading.embedding_files import DenseModule
from periscope.errors import ModelLoadError

#: Shortest length by which a vector is divided.
_MIN_LENGTH = 1e-12


def pooled(states: mx.array, mask: mx.array, pooling: Pooling) -> mx.array:
    """One vector for each text, in float32, lazily.

    Args:
        states: of shape (texts, tokens, size).
        mask: of shape (texts, tokens), false for padding, which stands at the end.
    """
    match pooling:
        case Pooling.CLS:
            return states[:, 0].astype(mx.float32)
        case Pooling.LAST:
            last = mask.sum(axis=1) - 1
            return mx.take_along_axis(states, last[:, None, None], axis=1)[:, 0].astype(mx.float32)
        case Pooling.MEAN:
            seen = mx.where(mask[..., None], states.astype(mx.float32), 0.0)
            return seen.sum(axis=1) / mask.sum(axis=1, keepdims=True)


def unit_length(vectors: mx.array) -> mx.array:
    """The vectors scaled to a Euclidean length of 1, lazily."""
    return vectors / mx.maximum(mx.linalg.norm(vectors, axis=-1, keepdims=True), _MIN_LENGTH)


def read_projections(modules: Sequence[DenseModule]) -> list[Callable[[mx.array], mx.array]]:
    """The linear layers after the pooling, read from their own files.

    Raises:
        ModelLoadError: a file does not hold the layer that its configuration describes.
    """
    return [_read(module) for module in modules]


def _read(module: DenseModule) -> Callable[[mx.array], mx.array]:
    layer = nn.Linear(module.in_features, module.out_features, bias=module.has_bias)
    stored: Any = mx.load(str(module.folder / "model.safetensors"))
    weights = [(name.removeprefix("linear."), array.astype(mx.float32)) for name, array in stored.items()]
    try:
        layer.load_weights(weights)
    except ValueError as error:
        raise ModelLoadError(f"The Dense module {module.folder.name} does not fit its config.json: {error}.") from None
    mx.eval(layer.parameters())
    return nn.Sequential(layer, nn.Tanh()) if module.has_tanh else layer
