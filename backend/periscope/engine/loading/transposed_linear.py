"""`nn.Linear` transposes its weight in each call: seven nodes more for each layer in the graph of every step."""

from __future__ import annotations

import mlx.core as mx
from mlx import nn


class TransposedLinear(nn.Linear):
    """An `nn.Linear` whose weight, which no longer changes, has been transposed once. It is a view, not a copy."""

    def transpose(self) -> mx.array:
        """The view, which each call uses from now on; not evaluated yet."""
        self._transposed: mx.array = self["weight"].T  # the underscore keeps it out of the layer's parameters
        return self._transposed

    def __call__(self, x: mx.array) -> mx.array:
        if "bias" in self:
            return mx.addmm(self["bias"], x, self["_transposed"])
        return x @ self["_transposed"]


def transpose_linear_layers(network: nn.Module) -> None:
    """Make every `nn.Linear` of the network a `TransposedLinear`. Its weights must have been read."""
    views = []
    for _, layer in network.named_modules():
        if type(layer) is nn.Linear:
            # In its place, because an architecture may hold it under several names, in lists and in functions.
            layer.__class__ = TransposedLinear
            views.append(layer.transpose())
    mx.eval(views)
