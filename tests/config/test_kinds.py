"""Embedding models are known by models.yaml, by their files, and by their names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from periscope.config.kinds import embeds
from periscope.core import ModelKind, Pooling
from tests.config.files import PAIR, load_text, model, problems_of


def write(folder: Path, name: str, value: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(value))
    return folder


@pytest.mark.parametrize(
    ("name", "value", "is_embedder"),
    [
        ("modules.json", [{"type": "a.Transformer"}, {"type": "sentence_transformers.models.Pooling"}], True),
        ("modules.json", [{"type": "a.Transformer"}, {"type": "a.sparse.SpladePooling"}], False),
        ("modules.json", {"type": "a.Pooling"}, False),
        ("config.json", {"architectures": ["XLMRobertaModel"]}, True),
        ("config.json", {"architectures": ["Qwen3ForCausalLM"]}, False),
        ("config.json", {"architectures": ["XLMRobertaForSequenceClassification"]}, False),
        ("config.json", {"architectures": ["InternVLChatModel"]}, False),
        ("config.json", {"architectures": [5, None]}, False),
        ("config.json", ["BertModel"], False),
        ("other.json", {}, False),
    ],
)
def test_files_tell_embedding_models(tmp_path: Path, name: str, value: Any, is_embedder: bool) -> None:
    """By their pooling, or a network without a head; not rerankers, and not chat models with odd names."""
    assert embeds(write(tmp_path, name, value)) is is_embedder


def test_entries_without_a_kind_are_recognised(tmp_path: Path) -> None:
    """In a folder, in the hub's cache at the revision that counts, and by name where nothing is on this disk."""
    write(tmp_path / "bge", "config.json", {"architectures": ["BertModel"]})
    repository = tmp_path / "cache" / "models--BAAI--bge-m3"
    write(repository / "snapshots" / "c0ffee", "modules.json", [{"type": "a.Pooling"}])
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee")
    text = (
        PAIR + "  - {name: local, local_path: ./bge}\n  - {name: cached, hf_id: BAAI/bge-m3}\n"
        "  - {name: pinned, hf_id: BAAI/bge-m3, revision: v9}\n  - {name: absent, hf_id: Qwen/Qwen3-Embedding-0.6B}\n"
        "  - {name: answers, hf_id: some/Qwen3-Embedding-Chat, kind: text}\n"
        "  - {name: said, hf_id: some/thing, kind: embedding, params: {pooling: last, matryoshka: true}}\n"
    )
    config = load_text(text, env={"HF_HUB_CACHE": str(tmp_path / "cache")}, folder=tmp_path)
    kinds = {each.name: each.kind for each in config.models if each.kind is not ModelKind.CAPTIONER}
    embedders = {name for name, kind in kinds.items() if kind is ModelKind.EMBEDDING}
    assert embedders == {"local", "cached", "absent", "said"}
    assert kinds["answers"] is kinds["pinned"] is kinds["words"] is ModelKind.TEXT
    assert model(config, "said").params.pooling is Pooling.LAST
    places = [f"models[{index}].kind" for index, each in enumerate(config.models) if each.name in ("local", "said")]
    assert [config.sources[place] for place in places] == ["derived", "models.yaml:19"]


def test_an_embedding_model_is_never_the_default(tmp_path: Path) -> None:
    """Also when it stands first, and `default` may be an alias of the first text model."""
    config = load_text("models:\n- {name: e, hf_id: o/embedder}\n- {name: t, hf_id: o/t, aliases: [default]}\n")
    assert config.default_model.name == "t"
    assert load_text("models: [{name: a, local_path: ./embedded-a}]", folder=tmp_path).default_model.name == "a"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: [{name: e, hf_id: o/e, kind: embedding}]", "models holds no text model"),
        ("models: [{name: e, hf_id: o/e, kind: captioner}]", "models[0].kind should be 'text' or 'embedding'"),
        (PAIR + "    params: {pooling: mean}\n", "models[2].params.pooling is for embedding models"),
        (PAIR + "    params: {matryoshka: false}\n", "models[2].params.matryoshka is for embedding models"),
        (PAIR + "    kind: embedding\n    params: {pooling: max}\n", "should be one of cls, mean, last"),
        (PAIR + "    kind: embedding\n    params: {kv_bits: 8}\n", "params.kv_bits is for models that answer requests"),
        (PAIR + "    kind: embedding\n    isolated: true\n", "models[2].isolated is for models that only caption"),
        (
            PAIR + "    kind: embedding\n    capabilities: {vision_mode: native}\n",
            "models[2].capabilities.vision_mode is for models that answer, and this one only embeds texts",
        ),
        (PAIR.replace("captioner\n", "captioner\n    kind: embedding\n"), "'eyes' is an embedding model"),
        (
            PAIR + "    kind: embedding\nserver: {anthropic_model: other}\n",
            "server.anthropic_model 'other' only embeds texts; name a text model",
        ),
        (
            PAIR + "    kind: embedding\n  - {name: big, hf_id: o/big, params: {draft_model: other}}\n",
            "'other' only embeds texts; name a text model",
        ),
    ],
)
def test_a_mistake_with_an_embedding_model_is_named(text: str, told: str) -> None:
    """With its key and the fix."""
    (problem,) = problems_of(text)
    assert told in problem


@pytest.mark.parametrize("flag", ["model", "vision_model"])
def test_flags_do_not_take_an_embedding_model(flag: str) -> None:
    """It neither answers nor captions."""
    (problem,) = problems_of(PAIR + "    kind: embedding\n", flags={flag: "other"})
    assert "embed" in problem
