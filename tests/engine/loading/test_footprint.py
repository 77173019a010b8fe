"""The footprint of a model from its files: what it takes once loaded, and clear errors for incomplete files."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mlx import nn
from mlx.utils import tree_flatten, tree_unflatten
from safetensors.numpy import save

from periscope.core import ModelKind
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig, InferenceEngine, VisionLanguageEngine
from periscope.engine.device.memory import KVFootprint
from periscope.engine.loading.footprint import BYTES_PER_PIXEL, measure
from periscope.errors import ModelLoadError
from tests.engine.driving import load
from tests.tiny_models import SHAPES, write_text_model

TEXT = EMBEDDED_MODELS["embedded:text"]
CAPTIONER = EMBEDDED_MODELS["embedded:captioner"]


def loaded_bytes(model: Path, config: EngineConfig, kind: type[InferenceEngine | VisionLanguageEngine]) -> int:
    async def run() -> int:
        async with await kind.load(str(model), config) as engine:
            return engine.memory.weights_bytes

    return asyncio.run(run())


def edit_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def quantise(folder: Path) -> Path:
    """Quantises a model from half precision, like models that people download."""
    model, scheme = load(folder)._model, {"group_size": 32, "bits": 4}
    model.update(
        tree_unflatten([(name, array.astype(mx.bfloat16)) for name, array in tree_flatten(model.parameters())])
    )
    nn.quantize(model, **scheme)
    mx.save_safetensors(str(folder / "model.safetensors"), dict(tree_flatten(model.parameters())))
    edit_config(folder, quantization=scheme)
    return folder


@pytest.mark.parametrize("dtype", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("model_type", sorted(SHAPES))
def test_text_models_take_the_bytes_of_their_headers(tmp_path: Path, model_type: str, dtype: str | None) -> None:
    """The bytes computed before a load are exactly those after it, as stored and when cast."""
    folder, config = write_text_model(tmp_path / "tiny", model_type=model_type), EngineConfig(dtype=dtype)
    assert measure(str(folder), config).weights_bytes == loaded_bytes(folder, config, InferenceEngine)


@pytest.mark.parametrize("dtype", [None, "float32", "float16"])
def test_quantised_weights_stay_and_their_scales_are_cast(tmp_path: Path, dtype: str | None) -> None:
    """Casting a quantised model changes the size of its floats only."""
    folder, config = quantise(write_text_model(tmp_path / "tiny")), EngineConfig(dtype=dtype)
    assert measure(str(folder), config).weights_bytes == loaded_bytes(folder, config, InferenceEngine)


@pytest.mark.parametrize("dtype", [None, "bfloat16"])
def test_the_demo_pair_takes_the_computed_bytes(dtype: str | None) -> None:
    """The footprints of text model and captioner equal the bytes that their loaders take."""
    config = EngineConfig(dtype=dtype)
    assert measure(str(TEXT), config).weights_bytes == loaded_bytes(TEXT, config, InferenceEngine)
    told = measure(str(CAPTIONER), config, kind=ModelKind.CAPTIONER).weights_bytes
    assert told == loaded_bytes(CAPTIONER, config, VisionLanguageEngine)


def test_a_draft_model_counts(tiny_text_model: Path) -> None:
    """The weights of a draft model are part of the footprint."""
    config = EngineConfig(draft_model=str(tiny_text_model))
    told = measure(str(tiny_text_model), config).weights_bytes
    assert told == 2 * measure(str(tiny_text_model), EngineConfig()).weights_bytes
    assert told == loaded_bytes(tiny_text_model, config, InferenceEngine)


def test_weights_that_mlx_lm_leaves_out_are_not_counted() -> None:
    """The vision part of a model that is loaded as a text model is not counted."""
    blind = measure(str(CAPTIONER), EngineConfig()).weights_bytes
    assert blind == loaded_bytes(CAPTIONER, EngineConfig(), InferenceEngine)
    assert blind < measure(str(CAPTIONER), EngineConfig(), kind=ModelKind.CAPTIONER).weights_bytes


def test_a_model_that_sees_takes_its_vision_part_and_room_for_a_picture() -> None:
    """Beside the room for a conversation, which a captioner does not need."""
    config = EngineConfig(has_vision=True)
    seeing, blind = measure(str(CAPTIONER), config), measure(str(CAPTIONER), EngineConfig())
    assert seeing.weights_bytes == loaded_bytes(CAPTIONER, config, InferenceEngine) > blind.weights_bytes
    told = json.loads((CAPTIONER / "preprocessor_config.json").read_text())["max_pixels"]
    assert seeing.reserve_bytes == blind.reserve_bytes + told * BYTES_PER_PIXEL


def test_each_loader_s_own_files_are_read(tmp_path: Path) -> None:
    """mlx-lm reads files by name, mlx-vlm by the index; a tensor in two files counts once."""
    folder = write_text_model(tmp_path / "tiny")
    once = measure(str(folder), EngineConfig()).weights_bytes
    shutil.copy(folder / "model.safetensors", folder / "model-copy.safetensors")
    mx.save_safetensors(str(folder / "adapter.safetensors"), {"extra": mx.zeros((100,))})
    mx.save_safetensors(str(folder / "consolidated.safetensors"), {"second.copy": mx.zeros((1000,))})
    (folder / "._model.safetensors").write_bytes(b"what macOS leaves on foreign disks")
    assert measure(str(folder), EngineConfig()).weights_bytes == once
    assert measure(str(folder), EngineConfig(), kind=ModelKind.CAPTIONER).weights_bytes == once + 400
    index = {"weight_map": {"some.weight": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert measure(str(folder), EngineConfig(), kind=ModelKind.CAPTIONER).weights_bytes == once


@pytest.mark.parametrize(("context", "limit", "tokens"), [(2048, None, 2048), (2048, 300, 512), (100_000, None, 8192)])
def test_the_reserve_holds_one_conversation(tmp_path: Path, context: int, limit: int | None, tokens: int) -> None:
    """The reserve is exactly what the caches of the whole context take, for 8192 tokens at most."""
    folder = write_text_model(tmp_path / "tiny", context_length=context)
    model = load(folder)
    footprint: KVFootprint = model._budget.footprint
    assert measure(str(folder), EngineConfig(context_length=limit)).reserve_bytes == footprint.nbytes(tokens)


def test_a_configured_limit_is_the_reserve(tiny_text_model: Path) -> None:
    """A configured limit of the KV caches is the reserve."""
    footprint = measure(str(tiny_text_model), EngineConfig(kv_limit_bytes=12_345))
    assert footprint.reserve_bytes == 12_345
    assert footprint.total_bytes == footprint.weights_bytes + 12_345


@pytest.mark.parametrize("change", [{"num_hidden_layers": None}, {"num_attention_heads": "4"}, {"kv_lora_rank": 512}])
def test_without_cache_sizes_the_reserve_is_a_tenth_of_the_weights(tmp_path: Path, change: dict[str, Any]) -> None:
    """This applies where the config does not describe the caches."""
    folder = write_text_model(tmp_path / "tiny")
    edit_config(folder, num_key_value_heads=None, **change)
    footprint = measure(str(folder), EngineConfig())
    assert footprint.reserve_bytes == int(footprint.weights_bytes * 0.1)


def test_linear_attention_grows_no_states(tmp_path: Path) -> None:
    """In a hybrid model the reserve grows only with the layers that have keys."""
    folder = write_text_model(tmp_path / "tiny")
    plain = measure(str(folder), EngineConfig()).reserve_bytes
    edit_config(folder, layer_types=["linear_attention", "full_attention"])
    assert measure(str(folder), EngineConfig()).reserve_bytes == plain // 2


def test_a_captioner_s_reserve_holds_a_picture_and_its_caption() -> None:
    """The reserve is for the KV caches of its context and the pixels of an image."""
    told = json.loads((CAPTIONER / "preprocessor_config.json").read_text())["max_pixels"]
    kv_bytes = 2 * 3 * 2 * 32 * 4 * 2048
    assert (
        measure(str(CAPTIONER), EngineConfig(), kind=ModelKind.CAPTIONER).reserve_bytes
        == kv_bytes + told * BYTES_PER_PIXEL
    )


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])


def leave_header(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100])


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


def remove(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def replace_by_a_page(folder: Path) -> None:
    (folder / "model.safetensors").write_text("<html>Sign in to download</html>")


def leave_pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")


def lose_a_shard(folder: Path) -> None:
    shards = {"a": "model.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


DAMAGES = {
    cut_short: "is cut short",
    leave_header: "is cut short",
    empty: "is cut short",
    remove: "has no weights in the safetensors format",
    replace_by_a_page: "is no safetensors file",
    leave_pointer: "is no safetensors file",
    lose_a_shard: "00002.* is missing, 1 of 2 files",
}


@pytest.mark.parametrize("kind", list(ModelKind))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_incomplete_files_are_an_error_with_the_fix(tmp_path: Path, damage: Any, kind: ModelKind) -> None:
    """The error comes before anything is loaded or unloaded."""
    folder = write_text_model(tmp_path / "tiny")
    damage(folder)
    with pytest.raises(ModelLoadError, match=rf"{DAMAGES[damage]}.*\. Put the whole model into that folder\.$"):
        measure(str(folder), EngineConfig(), kind=kind)


def test_a_model_of_the_hub_is_to_be_pulled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For an incomplete download the error names the command that finishes it."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--somebody--tiny"
    remove(write_text_model(repository / "snapshots" / ("0" * 40)))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    with pytest.raises(ModelLoadError, match=r"^somebody/tiny has no weights .* `periscope pull somebody/tiny`\.$"):
        measure("somebody/tiny", EngineConfig())


def measure_file(content: bytes, dtype: str | None = None) -> int:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "config.json").write_text("{}")
        (Path(name) / "model.safetensors").write_bytes(content)
        return measure(name, EngineConfig(dtype=dtype)).weights_bytes


SHAPE = st.lists(st.integers(0, 5), max_size=3).map(tuple)
ARRAYS = st.builds(np.zeros, SHAPE, st.sampled_from(["f2", "f4", "f8", "u1", "i2", "u4", "i8", "?"]))


@given(
    st.dictionaries(st.text(min_size=1, max_size=8), ARRAYS, max_size=6), st.sampled_from([None, "float16", "float32"])
)
@settings(max_examples=100, deadline=None)
def test_the_bytes_of_any_tensors_are_summed_right(arrays: dict[str, np.ndarray], dtype: str | None) -> None:
    """The weights of any tensors are summed right, and only floats are cast."""
    size = {None: 0, "float16": 2, "float32": 4}[dtype]
    expected = sum(
        array.size * size if dtype is not None and array.dtype.kind == "f" else array.nbytes
        for array in arrays.values()
    )
    assert measure_file(save({f"_{name}": array for name, array in arrays.items()}), dtype) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "dtype", "data_offsets"]), inner),
    max_leaves=12,
)
ENTRY = st.fixed_dictionaries({"dtype": st.sampled_from(["F32", "U8", ""]) | JSON, "data_offsets": JSON})
HEADERS = (
    JSON.map(json.dumps)
    | st.dictionaries(st.text(max_size=3), ENTRY | JSON, max_size=3).map(json.dumps)
    | st.just("[" * 100_000)
    | st.just('{"a":' * 100_000)
    | st.just('{"a": {"dtype": "F32", "data_offsets": [0, ' + "9" * 5000 + "]}}")
)


@given(
    st.binary(max_size=40)
    | st.builds(
        lambda header, rest: len(header).to_bytes(8, "little") + header + rest, HEADERS.map(str.encode), st.binary()
    )
    | st.builds(lambda length, rest: length.to_bytes(8, "little") + rest, st.integers(0, 2**64 - 1), st.binary())
)
@settings(max_examples=200, deadline=None)
def test_garbage_is_a_load_error_and_nothing_else(content: bytes) -> None:
    """No bytes in place of weights raise anything but ModelLoadError."""
    with suppress(ModelLoadError):
        assert measure_file(content) >= 0
