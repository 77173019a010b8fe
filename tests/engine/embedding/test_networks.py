"""Networks: the vectors are those of the architectures' definitions, and of a text alone whatever stands beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from mlx_vlm.models import bert as bert_family

from periscope.engine import EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.embedding.embedding_batch import EmbeddingModel
from periscope.errors import ModelLoadError
from tests.engine.embedding.checkpoints import CONFIGS, SIZE, write_model

TEXT = [2, 5, 9, 4, 20, 6, 11, 3]
HEADS = 4


def load(folder: Path, **config: Any) -> EmbeddingModel:
    return EmbeddingModel.load(folder, EngineConfig(**config), DeviceTurn(), lambda _done, _total: None)


def near(one: Any, other: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(np.asarray(one), np.asarray(other), atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("family", CONFIGS)
def test_a_text_has_the_same_vector_in_company(tmp_path: Path, family: str, dtype: str) -> None:
    """Beside longer ones, with as much padding as a batch may have, and at any place in it."""
    model = load(write_model(tmp_path, family, pooling="lasttoken" if family == "qwen3" else "mean"), dtype=dtype)
    texts = [TEXT, [2, 7, 3], [2, *[8, 12, 5, 30] * 8, 3], TEXT[::-1]]
    together = model.embed(texts)
    assert np.abs(together[0] - together[3]).max() > 0.01
    for text, vector in zip(texts, together, strict=True):
        near(model.embed([text])[0], vector, 1e-5 if dtype == "float32" else 2e-3)
    near(np.linalg.norm(together, axis=1), np.ones(4))


def layer_norm(states: Any, weights: dict[str, Any], name: str) -> Any:
    centred = states - states.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-12)
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def attend(queries: Any, keys: Any, values: Any) -> Any:
    """Attention over all tokens, head by head; each of shape (tokens, size)."""
    parts = []
    for query, key, value in zip(*(np.split(each, HEADS, axis=1) for each in (queries, keys, values)), strict=True):
        scores = np.exp(query @ key.T / np.sqrt(query.shape[1]))
        parts.append(scores / scores.sum(-1, keepdims=True) @ value)
    return np.concatenate(parts, axis=1)


def gelu(states: Any) -> Any:
    return np.array(mx.erf(mx.array(states / np.sqrt(2))) + 1) * states / 2


def bert(text: Sequence[int], weights: dict[str, Any]) -> Any:
    def linear(states: Any, name: str) -> Any:
        return states @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    states = weights["embeddings.word_embeddings.weight"][text]
    states = states + weights["embeddings.position_embeddings.weight"][: len(text)]
    states = states + weights["embeddings.token_type_embeddings.weight"][0]
    states = layer_norm(states, weights, "embeddings.LayerNorm")
    for number in range(2):
        at = f"encoder.layer.{number}"
        mixed = attend(*(linear(states, f"{at}.attention.self.{part}") for part in ("query", "key", "value")))
        mixed = linear(mixed, f"{at}.attention.output.dense")
        states = layer_norm(states + mixed, weights, f"{at}.attention.output.LayerNorm")
        inner = linear(gelu(linear(states, f"{at}.intermediate.dense")), f"{at}.output.dense")
        states = layer_norm(states + inner, weights, f"{at}.output.LayerNorm")
    return states


def rotated(states: Any) -> Any:
    """Rotary positions with base 1000 over the halves of each head."""
    heads = states.reshape(len(states), HEADS, -1)
    half = heads.shape[2] // 2
    angles = np.arange(len(states))[:, None] / 1000.0 ** (np.arange(half) / half)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    left, right = heads[..., :half], heads[..., half:]
    return np.concatenate([left * cos - right * sin, right * cos + left * sin], axis=-1).reshape(states.shape)


def nomic(text: Sequence[int], weights: dict[str, Any]) -> Any:
    states = weights["embeddings.word_embeddings.weight"][text]
    states = layer_norm(states + weights["embeddings.token_type_embeddings.weight"][0], weights, "emb_ln")
    for number in range(2):
        at = f"encoder.layers.{number}"
        queries, keys, values = np.split(states @ weights[f"{at}.attn.Wqkv.weight"].T, 3, axis=1)
        mixed = attend(rotated(queries), rotated(keys), values) @ weights[f"{at}.attn.out_proj.weight"].T
        states = layer_norm(states + mixed, weights, f"{at}.norm1")
        up, gate = (states @ weights[f"{at}.mlp.{part}.weight"].T for part in ("fc11", "fc12"))
        inner = (up * gate / (1 + np.exp(-gate))) @ weights[f"{at}.mlp.fc2.weight"].T
        states = layer_norm(states + inner, weights, f"{at}.norm2")
    return states


@pytest.mark.parametrize(("family", "reference"), [("bert", bert), ("nomic_bert", nomic)])
def test_encoders_compute_what_their_papers_say(tmp_path: Path, family: str, reference: Any) -> None:
    """The mean and the first token of the states that a few lines of NumPy compute from the same weights."""
    stored: Any = mx.load(str(write_model(tmp_path, family, is_normalized=False) / "model.safetensors"))
    states = reference(TEXT, {name: np.array(array) for name, array in stored.items()})
    near(load(tmp_path).embed([TEXT])[0], states.mean(0), 1e-4)
    near(load(tmp_path, pooling="cls").embed([TEXT])[0], states[0], 1e-4)


def test_a_causal_models_vector_is_its_last_tokens_state(tmp_path: Path) -> None:
    """The state before the head, as mlx-lm's own model has it; also when the weights' names have no prefix."""
    whole = write_model(tmp_path / "whole", "qwen3", pooling=None)
    network, _ = load_model(whole)
    state = network.model(mx.array([TEXT]))[0, -1]
    vector = np.array(state / mx.linalg.norm(state))
    near(load(whole).embed([TEXT, [2, *TEXT]])[0], vector)
    near(load(write_model(tmp_path / "bare", "qwen3", pooling=None, prefix="model.")).embed([TEXT])[0], vector)


def test_embedding_gemma_looks_both_ways_within_its_window(tmp_path: Path) -> None:
    """With one local layer a token sees four before and after it, and nothing beyond; a global layer sees all."""
    local = write_model(tmp_path / "local", "gemma3_text", num_hidden_layers=1)
    model = load(local, pooling="cls")
    text = [2, *range(5, 25)]
    first = model.embed([text])[0]
    for place in (4, 5):
        changed = [*text[:place], 40, *text[place + 1 :]]
        is_seen = np.abs(model.embed([changed])[0] - first).max() > 1e-4
        assert is_seen == (place == 4)
    everywhere = load(write_model(tmp_path / "global", "gemma3_text"), pooling="cls")
    changed = [*text[:-1], 40]
    assert np.abs(everywhere.embed([changed])[0] - everywhere.embed([text])[0]).max() > 1e-4


def test_dense_modules_follow_the_pooling(tmp_path: Path) -> None:
    """The vector is the pooled state times the matrix of the module's own file, at unit length."""
    plain = load(write_model(tmp_path / "plain", "bert", is_normalized=False)).embed([TEXT])[0]
    folder = write_model(tmp_path / "dense", "bert", dense=6)
    stored: Any = mx.load(str(folder / "2_Dense" / "model.safetensors"))
    wanted = np.array(stored["linear.weight"]) @ plain
    near(load(folder).embed([TEXT])[0], wanted / np.linalg.norm(wanted))


def test_modernberts_newer_keys_mean_the_same(tmp_path: Path) -> None:
    """As transformers 5 writes them: the bases of rotary positions by kind of layer, and the kinds of all layers."""
    older: dict[str, Any] = {"global_rope_theta": 5000.0, "local_rope_theta": 20.0, "global_attn_every_n_layers": 2}
    bases = {"full_attention": {"rope_theta": 5000.0}, "sliding_attention": {"rope_theta": 20.0}}
    kinds = ["full_attention", "sliding_attention", "full_attention"]
    size: dict[str, Any] = {"num_hidden_layers": 3, "local_attention": 6}
    wanted = load(write_model(tmp_path / "older", "modernbert", **size, **older)).embed([TEXT])[0]
    newer = write_model(tmp_path / "newer", "modernbert", **size, rope_parameters=bases, layer_types=kinds)
    near(load(newer).embed([TEXT])[0], wanted)
    plain = load(write_model(tmp_path / "plain", "modernbert", **size)).embed([TEXT])[0]
    assert np.abs(plain - wanted).max() > 1e-3


def test_quantised_weights_are_read(tmp_path: Path) -> None:
    """As mlx-embeddings and mlx-lm write them: eight bits change a vector little."""
    whole = load(write_model(tmp_path, "bert", intermediate_size=64)).embed([TEXT])[0]
    network, _ = load_model(tmp_path, get_model_classes=lambda **_: (bert_family.Model, bert_family.ModelConfig))
    nn.quantize(network, group_size=32, bits=8)
    mx.save_safetensors(str(tmp_path / "model.safetensors"), dict(tree_flatten(network.parameters())))
    config = CONFIGS["bert"] | {"intermediate_size": 64, "quantization": {"group_size": 32, "bits": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    quantised = load(tmp_path).embed([TEXT])[0]
    assert 0.99 < float(whole @ quantised) < 0.99999


def test_dense_modules_may_be_among_the_weights(tmp_path: Path) -> None:
    """Conversions of EmbeddingGemma by mlx-embeddings have them there."""
    plain = load(write_model(tmp_path, "gemma3_text", is_normalized=False)).embed([TEXT])[0]
    stored: Any = mx.load(str(tmp_path / "model.safetensors"))
    dense = {f"dense.{place}.weight": mx.random.normal(shape) for place, shape in enumerate(((128, 32), (32, 128)))}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), stored | dense)
    wanted = np.array(dense["dense.1.weight"]) @ (np.array(dense["dense.0.weight"]) @ plain)
    np.testing.assert_allclose(load(tmp_path).embed([TEXT])[0], wanted, rtol=1e-3)


@pytest.mark.parametrize(
    ("family", "config", "told"),
    [
        ("bert", {"position_embedding_type": "alibi"}, "has position_embedding_type 'alibi'"),
        ("bert", {"hidden_act": "relu"}, "only 'gelu' is computed for bert"),
        ("nomic_bert", {"moe_every_n_layers": 2}, "has moe_every_n_layers 2"),
        ("nomic_bert", {"n_embd": None}, "was saved by transformers 5"),
        ("qwen3", {"is_causal": False}, "attends in both directions"),
    ],
)
def test_a_variant_that_is_not_computed_is_refused(
    tmp_path: Path, family: str, config: dict[str, Any], told: str
) -> None:
    """Instead of vectors that mean nothing."""
    write_model(tmp_path, family)
    (tmp_path / "config.json").write_text(json.dumps(CONFIGS[family] | config))
    with pytest.raises(ModelLoadError, match=told):
        load(tmp_path)


def test_a_model_says_its_size(tmp_path: Path) -> None:
    """Numbers of a vector, and tokens of a text: RoBERTa's positions begin behind the padding's."""
    model = load(write_model(tmp_path / "x", "xlm-roberta"))
    assert (model.facts.size, model.facts.files.max_tokens) == (SIZE, 127)
