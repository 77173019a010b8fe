"""What is done to a network's layers when it is loaded, so that steps are shorter, changes none of its numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten
from mlx_lm.models.switch_layers import SwitchLinear
from mlx_lm.tuner.lora import LoRALinear
from mlx_lm.utils import load_model

from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.fused_projections import fuse_projections
from periscope.engine.loading.loader import materialize, weights_bytes
from periscope.engine.loading.transposed_linear import TransposedLinear, transpose_linear_layers
from tests.engine.families.checkpoints import write_checkpoint, write_quantised
from tests.engine.families.shapes import FAMILIES

#: How many layers have projections that are computed together: gated delta nets, and mixtures of experts.
NUM_FUSED = {
    "qwen3": 0,
    "qwen3_moe": 2,
    "qwen3_next": 7,
    "qwen3_5": 3,
    "llama4": 2,
    "gemma4_moe": 4,
    "gpt_oss": 2,
    "glm4_moe": 1,
    "deepseek_v3": 1,
    "granite_hybrid": 4,
}
TOKENS = mx.array([[1, 2, 3, 4, 5], [9, 8, 7, 6, 5]])


class Projections(nn.Module):  # type: ignore[misc]
    """A gated delta net's projections of its input, by mlx-lm's names."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.in_proj_qkv, self.in_proj_z, self.in_proj_b, self.in_proj_a = layers


def linear(num_outputs: int, *, bias: bool = False, num_inputs: int = 64) -> nn.Linear:
    return nn.Linear(num_inputs, num_outputs, bias=bias)


def all_four(module: Any, x: mx.array) -> list[mx.array]:
    return [module.in_proj_qkv(x), module.in_proj_z(x), module.in_proj_b(x), module.in_proj_a(x)]


def are_equal(outputs: list[mx.array], wanted: list[mx.array]) -> bool:
    return all(mx.array_equal(a, b).item() for a, b in zip(outputs, wanted, strict=True))


@pytest.mark.parametrize("name", NUM_FUSED)
@pytest.mark.parametrize("write", [write_checkpoint, write_quantised])
def test_the_logits_are_those_of_mlx_lm(name: str, write: Any, tmp_path: Path) -> None:
    """To the last bit, and out of as many bytes of weights."""
    folder = write(tmp_path / name, FAMILIES[name])
    plain, _ = load_model(folder)
    fast, _ = load_model(folder, lazy=True)
    assert fuse_projections(fast) == NUM_FUSED[name]
    materialize(fast, None, DeviceTurn())
    assert weights_bytes(fast) == weights_bytes(plain)
    assert mx.array_equal(plain(TOKENS), fast(TOKENS)).item()
    one = TOKENS[:, :1]
    assert mx.array_equal(plain(one), fast(one)).item()


@pytest.mark.parametrize("is_quantised", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_each_projection_is_that_of_what_it_is_called_with(is_quantised: bool, bias: bool) -> None:
    """In any order, more than once, with other inputs between, and where only some of them are called."""
    module = Projections(*(linear(size, bias=bias) for size in (96, 32, 8, 4)))
    if is_quantised:
        nn.quantize(module, 32, 4)
    first, second = mx.random.normal((2, 3, 64)), mx.random.normal((1, 64))
    wanted, other = all_four(module, first), all_four(module, second)
    assert fuse_projections(module) == 1
    transpose_linear_layers(module)
    assert are_equal(all_four(module, first), wanted)
    backwards = [module.in_proj_a(first), module.in_proj_b(first), module.in_proj_z(first), module.in_proj_qkv(first)]
    assert are_equal(backwards[::-1], wanted)
    assert are_equal([module.in_proj_z(first), module.in_proj_z(first)], [wanted[1], wanted[1]])
    assert are_equal([module.in_proj_b(second), module.in_proj_a(first)], [other[2], wanted[3]])
    assert are_equal(all_four(module, second), other)


def test_what_it_was_called_with_is_let_go() -> None:
    module = Projections(*(linear(size) for size in (96, 32, 8, 4)))
    fuse_projections(module)
    all_four(module, mx.zeros((1, 64)))
    fused = module.in_proj_z.fused
    assert (fused._input, fused._outputs) == ((), {})


@pytest.mark.parametrize(
    "odd",
    [
        linear(8, bias=True),
        linear(8, num_inputs=32),
        linear(8).to_quantized(32, 4),
        LoRALinear.from_base(linear(8)),
    ],
    ids=["bias", "inputs", "quantised", "adapter"],
)
def test_projections_that_differ_stay_as_they_are(odd: nn.Module) -> None:
    layers = [linear(96), linear(32), odd, linear(4)]
    module = Projections(*layers)
    assert fuse_projections(module) == 0
    assert [module.in_proj_qkv, module.in_proj_z, module.in_proj_b, module.in_proj_a] == layers


@pytest.mark.parametrize(("bits", "group_size"), [(8, 32), (4, 64)])
def test_projections_of_different_precisions_stay_as_they_are(bits: int, group_size: int) -> None:
    layers = [linear(size).to_quantized(32, 4) for size in (96, 32, 8)]
    assert fuse_projections(Projections(*layers, linear(4).to_quantized(group_size, bits))) == 0


def test_projections_that_are_packed_in_different_ways_stay_as_they_are() -> None:
    layers: list[Any] = [linear(size).to_quantized(32, 4) for size in (96, 32, 8, 4)]
    layers[1].mode = "another"
    assert fuse_projections(Projections(*layers)) == 0


def test_experts_with_scales_of_their_own_stay_as_they_are() -> None:
    """NVFP4 with a global scale for each expert and projection, which one product cannot have two of."""
    module: Any = nn.Module()
    module.up_proj, module.gate_proj = SwitchLinear(64, 32, 4, bias=False), SwitchLinear(64, 32, 4, bias=False)
    module.up_proj = module.up_proj.to_quantized(16, 4, "nvfp4", global_scale=True)
    module.gate_proj = module.gate_proj.to_quantized(16, 4, "nvfp4", global_scale=True)
    assert fuse_projections(module) == 0


@pytest.mark.parametrize("bias", [False, True])
def test_a_linear_layer_transposes_its_weight_once(bias: bool) -> None:
    """Its output, its parameters and its memory are what they were."""
    network = nn.Sequential(linear(48, bias=bias), nn.ReLU(), linear(8, num_inputs=48, bias=bias))
    mx.eval(network.parameters())
    x = mx.random.normal((3, 64))
    wanted, names = network(x), [name for name, _ in tree_flatten(network.parameters())]
    before = mx.get_active_memory()
    transpose_linear_layers(network)
    assert mx.get_active_memory() == before
    assert mx.array_equal(network(x), wanted).item()
    assert [name for name, _ in tree_flatten(network.parameters())] == names
    assert all(type(layer) is TransposedLinear for layer in (network.layers[0], network.layers[2]))


def test_a_linear_layer_computes_with_the_weight_that_it_is_given() -> None:
    """Gemma 3n gives some of its layers another one in each step, which has to be computed with the step's output."""
    layer = linear(8)
    transpose_linear_layers(nn.Sequential(layer))
    x = mx.random.normal((3, 64))
    for _ in range(2):
        layer.weight = layer.weight * 2
        output = layer(x)
        wanted = x @ mx.array(layer.weight.tolist()).T
        mx.eval(output)
        assert mx.array_equal(output, wanted).item()
