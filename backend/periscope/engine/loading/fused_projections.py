"""Projections of the same input, computed as one product: the gates and the inputs of all experts, for example.

Each projection of each layer is a kernel to launch in every step of decoding, and one of few outputs takes longer to
launch than to compute. Each output has a row of weights, scales and biases of its own, quantised or not, so that the
rows of several projections can lie in one array, and what is computed from a row is what it was.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx_lm.models.switch_layers import QuantizedSwitchLinear, SwitchLinear

_DENSE = (nn.Linear, nn.QuantizedLinear)
_EXPERTS = (SwitchLinear, QuantizedSwitchLinear)
#: Names of projections that mlx-lm's models compute from the same input, with the layers that they may be: those of a
#: gated delta net, and of a mixture of experts. Other people measured 5 to 7 % more tokens a second from them on Macs
#: (ml-explore/mlx-swift-lm#572, raullenchai/Rapid-MLX#2151). Queries, keys and values are not among them: on a CPU that
#: brings nothing, and in a batch of rows each of the three is copied before its rope.
_GROUPS: tuple[tuple[tuple[str, ...], tuple[type[nn.Module], ...]], ...] = (
    (("in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a"), _DENSE),
    (("in_proj_qkvz", "in_proj_ba"), _DENSE),
    (("up_proj", "gate_proj"), _EXPERTS),
)
#: The arrays of such a layer that have a row for each output, with the axis of the rows.
ROW_AXES = {"weight": -2, "scales": -2, "biases": -2, "bias": -1}


def fuse_projections(network: nn.Module) -> int:
    """Replace projections of one input by `FusedProjections`, before their weights are read; returns how many it made.

    Projections that differ in precision, in having a bias or in their inputs stay as they are, and so do adapters and
    layers of an architecture's own.
    """
    num_fused = 0
    for _, module in network.named_modules():
        for names, kinds in _GROUPS:
            members = [module.get(name) for name in names]
            if all(type(member) in kinds for member in members) and _are_alike(members):
                fused = FusedProjections(members)
                setattr(module, "_and_".join(names), fused.joint)
                for index, name in enumerate(names):
                    setattr(module, name, Projection(fused, index))
                num_fused += 1
    return num_fused


def _are_alike(members: Sequence[Any]) -> bool:
    first = members[0]
    return all(
        type(member) is type(first)
        and vars(member) == vars(first)
        and member.keys() == first.keys() <= ROW_AXES.keys()
        and all(
            _without_rows(member[name], axis) == _without_rows(first[name], axis)
            for name, axis in ROW_AXES.items()
            if name in first
        )
        for member in members
    )


def _without_rows(array: mx.array, axis: int) -> tuple[Any, ...]:
    shape = list(array.shape)
    del shape[axis]
    return (array.dtype, *shape)


class FusedProjections:
    """Owns the weights of several projections, and computes all of them when the first is called with an input.

    Attributes:
        joint: a layer of the members' type, whose outputs are theirs, one after the other.
        ends: the first output of each member but the first, among the joint ones.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        self.joint = copy.copy(members[0])
        for name, axis in ROW_AXES.items():
            if name in self.joint:
                self.joint[name] = mx.concatenate([member[name] for member in members], axis=axis)
        *self.ends, _ = accumulate(member["weight"].shape[-2] for member in members)
        self._input: tuple[Any, ...] = ()
        self._outputs: dict[int, mx.array] = {}

    def output(self, index: int, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> mx.array:
        """The output of one member for what it is called with."""
        called_with = (*args, *keywords.values())
        if index not in self._outputs or not _are_same(called_with, self._input):
            self._outputs = dict(enumerate(mx.split(self.joint(*args, **keywords), self.ends, axis=-1)))
            self._input = called_with
        output = self._outputs.pop(index)
        if not self._outputs:
            self._input = ()  # lets go of it
        return output


def _are_same(inputs: Sequence[Any], others: Sequence[Any]) -> bool:
    return len(inputs) == len(others) and all(map(operator.is_, inputs, others))


class Projection:
    """One member of `FusedProjections`, in the place where the architecture calls it."""

    def __init__(self, fused: FusedProjections, index: int) -> None:
        self.fused = fused
        self.index = index

    def __call__(self, *args: Any, **keywords: Any) -> mx.array:
        return self.fused.output(self.index, args, keywords)
