"""EmbeddingFiles: what sentence-transformers' files say, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from periscope.core import ModelKind, Pooling
from periscope.engine import EngineConfig
from periscope.engine.loading.embedding_files import (
    BATCH_TOKENS,
    MAX_TEXT_TOKENS,
    EmbeddingFiles,
    working_bytes,
)
from periscope.engine.loading.footprint import measure
from periscope.errors import ModelLoadError
from tests.engine.embedding.checkpoints import CONFIGS, write_model


def read(folder: Path, **config: Any) -> EmbeddingFiles:
    return EmbeddingFiles.read(folder, CONFIGS["bert"] | config)


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, Pooling.CLS),
        ({"pooling_mode_mean_tokens": True}, Pooling.MEAN),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, Pooling.LAST),
        ({"pooling_mode": "cls"}, Pooling.CLS),
    ],
)
def test_pooling_is_read_in_old_and_new_shapes(tmp_path: Path, settings: dict[str, Any], pooling: Pooling) -> None:
    """Also where there is no list of modules."""
    write(tmp_path, "1_Pooling/config.json", settings)
    assert read(tmp_path).pooling is pooling


def test_without_files_of_its_own_a_model_has_the_usual(tmp_path: Path) -> None:
    """Unknown pooling, unit length, no prompts, and a bound on the length of texts."""
    told = read(tmp_path, max_position_embeddings=100_000)
    assert told == EmbeddingFiles(max_tokens=MAX_TEXT_TOKENS)


def test_everything_that_the_files_say_is_read(tmp_path: Path) -> None:
    """Modules in their order, the shortest of the bounds of length, prompts and lower case."""
    write_model(tmp_path, "bert", pooling="cls", is_normalized=False, dense=6, prompts={"query": "q: "})
    write(tmp_path, "sentence_bert_config.json", {"max_seq_length": 50, "do_lower_case": True})
    write(tmp_path, "config_sentence_transformers.json", {"prompts": {"q": "ask: "}, "default_prompt_name": "q"})
    told = read(tmp_path, is_matryoshka=True)
    assert (told.pooling, told.is_normalized, told.max_tokens, told.is_lowered) == (Pooling.CLS, False, 50, True)
    assert (told.prompts, told.default_prompt, told.is_matryoshka) == ({"q": "ask: "}, "q", True)
    assert [(each.in_features, each.out_features) for each in told.dense] == [(32, 6)]


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("1_Pooling/config.json", {"pooling_mode_weightedmean_tokens": True}, "pools in a way that is not computed"),
        ("1_Pooling/config.json", {"pooling_mode": "cls", "include_prompt": False}, "over all tokens"),
        ("1_Pooling/config.json", {}, r"\(nothing; one of cls"),
        ("1_Pooling/config.json", ["cls"], "does not hold what it should"),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.LSTM"}], "has a module LSTM"),
        ("modules.json", [{"type": "a.Normalize"}, {"type": "a.Dense"}], "has a module Dense"),
        ("modules.json", [{"type": "a.Dense", "path": "2_Dense"}], "needs a model.safetensors"),
        ("modules.json", {"0": "a.Transformer"}, "does not hold what it should"),
        ("modules.json", ["a.Transformer"], "does not hold what it should"),
    ],
)
def test_what_is_not_computed_is_refused(tmp_path: Path, name: str, value: Any, told: str) -> None:
    """With what is known, so that nobody gets vectors of another meaning."""
    write(tmp_path, name, value)
    with pytest.raises(ModelLoadError, match=told):
        read(tmp_path)


@pytest.mark.parametrize(
    ("folder", "is_matryoshka"),
    [
        ("Qwen3-Embedding-0.6B-4bit", True),
        ("models--google--embeddinggemma-300m/snapshots/0a1b", True),
        ("nomic-embed-text-v1.5", True),
        ("nomic-embed-text-v1", False),
        ("bge-m3", False),
    ],
)
def test_families_trained_for_fewer_dimensions_are_known(tmp_path: Path, folder: str, is_matryoshka: bool) -> None:
    """By their names, because their files do not say it."""
    assert read(tmp_path / folder).is_matryoshka is is_matryoshka


def test_memory_is_told_before_the_load(tmp_path: Path) -> None:
    """All weights with the Dense modules, and a forward pass: more for longer texts, and at least a whole batch."""
    folder = write_model(tmp_path, "bert", dense=6)
    told = measure(str(folder), EngineConfig(), kind=ModelKind.EMBEDDING)
    size = (folder / "model.safetensors").stat().st_size
    assert size * 0.9 < told.weights_bytes - 4 * 6 * 32 < size
    assert told.reserve_bytes > 4 * BATCH_TOKENS * 12 * 32
    causal, encoder = ({"hidden_size": 128, "num_attention_heads": 2, "model_type": each} for each in ("qwen3", "bert"))
    mask = 2 * 4 * 4096 * 4096
    assert working_bytes(encoder, 4096) == working_bytes(causal, 4096) + mask
    assert working_bytes(causal | {"use_bidirectional_attention": True}, 4096) == working_bytes(encoder, 4096)
    short = measure(str(folder), EngineConfig(context_length=16), kind=ModelKind.EMBEDDING)
    assert 0 < short.reserve_bytes < told.reserve_bytes
