"""What the repositories of some families hold that others do not: types, precisions and eight-bit floats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model

from periscope.engine.config import EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.footprint import measure
from periscope.engine.loading.loader import materialize, weights_bytes
from periscope.errors import ModelLoadError
from tests.engine.driving import load
from tests.engine.families.checkpoints import stored_weights, write_checkpoint
from tests.engine.families.shapes import FAMILIES


def edit_text_config(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] |= changes
    (folder / "config.json").write_text(json.dumps(config))


def test_a_field_of_a_type_that_transformers_no_longer_wants_is_no_obstacle(tmp_path: Path) -> None:
    """Llama 4's repositories say `attn_temperature_tuning: 4`; the tokenizer, which refused that, has no use for it."""
    folder = write_checkpoint(tmp_path / "llama4", FAMILIES["llama4"])
    edit_text_config(folder, attn_temperature_tuning=4)
    model = load(folder)
    assert model.tokenizer.encode("ab")
    assert model.tokenizer.has_chat_template


@pytest.mark.parametrize(("name", "kept"), [("deepseek_v3", "e_score_correction_bias"), ("qwen3_5", "A_log")])
def test_a_cast_leaves_what_the_architecture_wants_exact(tmp_path: Path, name: str, kept: str) -> None:
    """A router's biases and decay rates stay as they are stored; everything else becomes what was asked for."""
    folder, config = write_checkpoint(tmp_path / name, FAMILIES[name]), EngineConfig(dtype="bfloat16")
    model, _ = load_model(folder, lazy=True)
    materialize(model, config.dtype, DeviceTurn())
    types = {key: array.dtype for key, array in tree_flatten(model.parameters())}
    exact = {key for key in types if key.endswith(kept)}
    assert exact
    assert {types[key] for key in exact} == {mx.float32}
    assert {types[key] for key in types.keys() - exact} == {mx.bfloat16}
    told = measure(str(folder), config).weights_bytes
    assert told <= weights_bytes(model) < told * 1.01


def store_in_eight_bits(folder: Path, name: str) -> None:
    """One matrix as DeepSeek publishes all of them: E4M3, with a scale for each block of 128 by 128."""
    file = folder / "model.safetensors"
    weights = stored_weights(folder)
    weights[name] = mx.to_fp8(weights[name])
    weights[f"{name}_scale_inv"] = mx.ones((1, 1))
    mx.save_safetensors(str(file), weights)
    content = file.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[name]["dtype"] = "F8_E4M3"  # mx.save_safetensors knows no such type
    packed = json.dumps(header).encode()
    file.write_bytes(len(packed).to_bytes(8, "little") + packed + content[8 + length :])


def test_eight_bit_floats_are_counted_as_they_are_unpacked(tmp_path: Path) -> None:
    """mlx-lm makes half precision of them: twice what the file holds, to the byte."""
    folder = write_checkpoint(tmp_path / "deepseek", FAMILIES["deepseek_v3"])
    store_in_eight_bits(folder, "model.layers.0.mlp.gate_proj.weight")
    model = load(folder)._model
    assert model.model.layers[0].mlp.gate_proj.weight.dtype == mx.bfloat16
    assert measure(str(folder), EngineConfig()).weights_bytes == weights_bytes(model)


def test_eight_bit_floats_that_mlx_lm_misreads_are_refused(tmp_path: Path) -> None:
    """Ministral 3 as Mistral publishes it would load and say nonsense: the error says what to choose instead."""
    name = "language_model.model.layers.0.mlp.gate_proj.weight"
    folder = write_checkpoint(tmp_path / "ministral", FAMILIES["ministral3"])
    right = stored_weights(folder)[name]
    store_in_eight_bits(folder, name)
    with pytest.raises(ModelLoadError, match=r"8-bit floats.*converted for MLX"):
        measure(str(folder), EngineConfig())
    misread = dict(tree_flatten(load_model(folder)[0].parameters()))[name]
    assert not mx.allclose(misread, right, atol=0.1), "mlx-lm reads them now: let them be loaded"
