"""Optimisers of the demo text model: Adam for everything, or Muon for the matrices and Adam for the rest.

Source of Muon: Keller Jordan, "Muon: an optimizer for hidden layers in neural networks" (2024).
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
BETAS = (0.9, 0.98)
ADAM_ALONE_RATE = 0.0012
MUON_RATE, ADAM_BESIDE_RATE = 0.006, 0.0006  # Muon's usual 0.02 is too noisy for batches this small


def orthogonalise(stack: Tensor, steps: int = 5) -> Tensor:
    """Nearest semi-orthogonal matrices (roughly) of a stack (count, rows, columns)."""
    a, b, c = NEWTON_SCHULZ
    x = stack.bfloat16()
    wide = x.shape[1] <= x.shape[2]
    x = x if wide else x.transpose(1, 2)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x if wide else x.transpose(1, 2)).float()


class Muon:
    """Momentum whose update is orthogonalised; owns the momentum of its matrices, stacked by shape."""

    def __init__(self, matrices: list[nn.Parameter], momentum: float = 0.95) -> None:
        self.momentum = momentum
        groups: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for matrix in matrices:
            groups[matrix.shape].append(matrix)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """One update; gradients are read and left as they are."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            gradients = torch.stack([p.grad if p.grad is not None else torch.zeros_like(p) for p in group])
            buffer.lerp_(gradients, 1 - self.momentum)
            update = orthogonalise(gradients.lerp(buffer, self.momentum))
            scale = max(1.0, group[0].shape[0] / group[0].shape[1]) ** 0.5
            for parameter, change in zip(group, update, strict=True):
                parameter.add_(change, alpha=-rate * scale)


class Optimiser:
    """One step for all parameters; owns the state of Adam and, if it is used, of Muon."""

    def __init__(self, model: nn.Module, *, with_muon: bool) -> None:
        named = list(model.named_parameters())
        matrices = [p for n, p in named if with_muon and p.dim() == 2 and "embed" not in n]
        rest = [p for n, p in named if not with_muon or p.dim() != 2 or "embed" in n]
        self.muon = Muon(matrices)
        self.adam_rate = ADAM_BESIDE_RATE if with_muon else ADAM_ALONE_RATE
        self.adam = torch.optim.Adam(rest, lr=self.adam_rate, betas=BETAS, fused=True)

    def step(self, factor: float) -> None:
        """One update with the rates scaled by ``factor``; clears the gradients."""
        self.muon.step(MUON_RATE * factor)
        self.adam.param_groups[0]["lr"] = self.adam_rate * factor
        self.adam.step()
        self.adam.zero_grad(set_to_none=True)
        for group in self.muon.groups:
            for parameter in group:
                parameter.grad = None

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"adam": self.adam.state_dict(), "muon": self.muon.buffers}

    def load(self, state: dict[str, Any]) -> None:
        """Takes over what ``state`` returned."""
        self.adam.load_state_dict(state["adam"])
        self.muon.buffers = state["muon"]
