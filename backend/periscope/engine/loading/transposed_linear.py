"""`nn.Linear` transposes its weight in each call: seven nodes more for each layer in the graph of every step."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


class TransposedLinear(nn.Linear):
    """An `nn.Linear` whose weight has been transposed once. It is a view, not a copy.

    A layer that is given another weight, as Gemma 3n gives some of its layers in each step, transposes that one.
    """

    def transpose(self) -> mx.array:
        """The view, which each call uses as long as the weight is this one; not evaluated yet."""
        self._source: mx.array = self["weight"]  # the underscores keep both out of the layer's parameters
        self._transposed: mx.array = self._source.T
        return self._transposed

    def __call__(self, x: mx.array) -> mx.array:
        transposed = self["_transposed"] if self["weight"] is self["_source"] else self.transpose()
        if "bias" in self:
            return mx.addmm(self["bias"], x, transposed)
        return x @ transposed


def transpose_linear_layers(network: nn.Module) -> None:
    """Make every `nn.Linear` of the network a `TransposedLinear`. Its weights must have been read."""
    views = []
    for _, layer in network.named_modules():
        if type(layer) is nn.Linear:
            # In its place, because an architecture may hold it under several names, in lists and in functions.
            layer.__class__ = TransposedLinear
            views.append(layer.transpose())
    mx.eval(views)
