"""The networks of embedding models: token ids to hidden states. Worker thread only; contains the libraries' quirks.

Causal models are mlx-lm's without their heads. Padding stands at the end, where causal attention never looks, so they
need no mask. Encoders are mlx-vlm's, which mask it. What neither library computes rightly is here: EmbeddingGemma,
whose attention looks both ways within its window, and in `nomic.py` Nomic's BERT.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import mlx.core as mx
from mlx import nn
from mlx_lm.utils import _get_classes, load_model

from periscope.core import JSONObject, Pooling
from periscope.engine.embedding import nomic
from periscope.engine.loading.embedding_files import attends_both_ways
from periscope.errors import ModelLoadError

if TYPE_CHECKING:
    from pathlib import Path

#: Shape (texts, tokens) of ids and of the mask (true = a token, not padding) -> hidden states (texts, tokens, size).
Forward = Callable[[mx.array, mx.array], mx.array]

#: Architectures with an encoder in mlx-vlm 0.7, by `model_type`.
_ENCODERS: Mapping[str, str] = {
    "bert": "mlx_vlm.models.bert",
    "camembert": "mlx_vlm.models.xlm_roberta",
    "modernbert": "mlx_vlm.models.modernbert",
    "roberta": "mlx_vlm.models.xlm_roberta",
    "xlm-roberta": "mlx_vlm.models.xlm_roberta",
}


class EmbeddingNetwork:
    """Owns the network of one model.

    Attributes:
        network: its `nn.Module`.
        own_pooling: how this architecture pools where the files do not say.
        projections: linear layers after the pooling that are stored among the weights.
        padding_id: by which RoBERTa tells padding from text, for the positions.
    """

    def __init__(self, network: Any, forward: Forward, own_pooling: Pooling) -> None:
        self.network = network
        self.own_pooling = own_pooling
        self.padding_id = int(getattr(getattr(network, "config", None), "pad_token_id", None) or 0)
        self.projections: list[nn.Module] = list(getattr(network, "dense", None) or [])
        self._forward = forward

    @classmethod
    def load(cls, path: Path, config: JSONObject) -> EmbeddingNetwork:
        """A network with lazy weights, from a folder.

        Raises:
            ModelLoadError: no library computes this architecture as an embedding model.
            Exception: whatever the library raises while it loads.
        """
        architecture = str(config.get("model_type"))
        if architecture in _ENCODERS:
            _check_encoder(path, config)
            module = importlib.import_module(_ENCODERS[architecture])
            network, _ = load_model(path, lazy=True, get_model_classes=lambda config: _encoder_classes(module, config))
            return cls(network, lambda ids, mask: network(ids, attention_mask=mask).last_hidden_state, Pooling.MEAN)
        if architecture == "nomic_bert":
            network, _ = load_model(path, lazy=True, get_model_classes=lambda config: nomic.classes(path, config))
            return cls(network, network, Pooling.MEAN)
        is_both_ways = attends_both_ways(config)
        if is_both_ways and architecture != "gemma3_text":
            raise ModelLoadError(
                f"{path.name} (architecture {architecture}) attends in both directions, which is not computed for it. "
                "Choose another embedding model."
            )
        network, _ = load_model(path, lazy=True, get_model_classes=_headless_classes)
        if is_both_ways:
            return cls(network, lambda ids, mask: _gemma_states(network, ids, mask), Pooling.MEAN)
        return cls(network, lambda ids, _mask: network.model(ids), Pooling.LAST)

    def states(self, ids: mx.array, mask: mx.array) -> mx.array:
        """Hidden states of the last layer, normed, lazily. See `Forward`."""
        return self._forward(ids, mask)


def _encoder_classes(module: Any, config: JSONObject) -> tuple[type, type]:
    """mlx-vlm's classes for an encoder. Changes the config, with which mlx-lm's loader makes the network.

    mlx-vlm 0.7 knows ModernBERT's older keys only; transformers 5 writes others. Exit: its ModelConfig reads those.
    """
    rope, kinds = config.get("rope_parameters"), config.get("layer_types")
    for key, kind in (("global_rope_theta", "full_attention"), ("local_rope_theta", "sliding_attention")):
        of_kind = rope.get(kind) if isinstance(rope, dict) else None
        if isinstance(of_kind, dict) and "rope_theta" in of_kind:
            config.setdefault(key, of_kind["rope_theta"])
    if isinstance(kinds, list) and kinds.count("full_attention") > 1:
        config.setdefault("global_attn_every_n_layers", kinds.index("full_attention", 1))
    return module.Model, module.ModelConfig


def _check_encoder(path: Path, config: JSONObject) -> None:
    """Refuse variants that mlx-vlm 0.7 would compute in the ordinary way without a word."""
    variants = {
        "position_embedding_type": "absolute",
        "hidden_act": "gelu",
        "hidden_activation": "gelu",
    }
    for key, known in variants.items():
        if config.get(key, known) != known:
            raise ModelLoadError(
                f"{path.name} has {key} {config[key]!r}, and only {known!r} is computed for {config['model_type']}. "
                "Choose another embedding model."
            )


def _headless_classes(config: JSONObject) -> tuple[type, type]:
    """mlx-lm's classes for a causal model, without the head that embedding models do not have or do not need."""
    base: Any
    base, args = _get_classes(config)

    class Headless(base):
        def sanitize(self, weights: dict[str, mx.array]) -> dict[str, mx.array]:
            # Checkpoints that were saved without a head have no prefix, and mlx-embeddings stores Dense modules here.
            dense = {name: weights.pop(name) for name in list(weights) if name.startswith("dense.")}
            named = {
                name if name.startswith("model.") else f"model.{name}": array
                for name, array in weights.items()
                if not name.startswith("lm_head.")
            }
            kept: dict[str, mx.array] = super().sanitize(named) if hasattr(super(), "sanitize") else named
            self.pop("lm_head", None)
            if dense:
                size = self.args.hidden_size
                self.dense = [nn.Linear(size, 4 * size, bias=False), nn.Linear(4 * size, size, bias=False)]
            return {name: array for name, array in kept.items() if not name.startswith("lm_head.")} | dense

    return Headless, args


def _gemma_states(network: Any, ids: mx.array, mask: mx.array) -> mx.array:
    """EmbeddingGemma: Gemma 3 whose attention looks both ways, in most layers half a window far.

    Source: transformers' `Gemma3TextConfig` and `_bidirectional_window_overlay`.
    """
    body, args = network.model, network.args
    states = body.embed_tokens(ids)
    states = states * mx.array(args.hidden_size**0.5, mx.bfloat16).astype(states.dtype)
    places = mx.arange(ids.shape[1])
    near = mx.abs(places[:, None] - places[None]) <= args.sliding_window // 2
    everywhere = mask[:, None, None, :]
    itself = places[:, None] == places[None]  # padding far from the text would see nothing at all, which gives NaN
    nearby = (everywhere & near[None, None]) | itself[None, None]
    for number, layer in enumerate(body.layers, 1):
        is_global = number % args.sliding_window_pattern == 0
        states = layer(states, everywhere if is_global else nearby, None)
    return body.norm(states)
