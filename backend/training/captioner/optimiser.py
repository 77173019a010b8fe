"""Muon for the matrices of the two towers, Adam for everything else."""

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

_ADAM_ONLY = ("embed", "patch_embed", "head")


def _orthogonal(matrices: Tensor) -> Tensor:
    """Newton-Schulz iteration on a stack (n, rows, columns).

    Source: Keller Jordan, Muon (2024), quintic coefficients.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).float()


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal; matrices of one shape go together."""

    def __init__(self, parameters: list[nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": 0.02})

    def step(self, closure: None = None) -> None:  # noqa: ARG002 - torch's signature
        """One update of every matrix that has a gradient."""
        with torch.no_grad():
            for group in self.param_groups:
                self._update(group)

    def _update(self, group: dict[str, Any]) -> None:
        stacks: dict[torch.Size, list[nn.Parameter]] = defaultdict(list)
        for parameter in group["params"]:
            if parameter.grad is not None:
                stacks[parameter.shape].append(parameter)
        for shape, parameters in stacks.items():
            directions = torch.stack([self._direction(p, group["momentum"]) for p in parameters])
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for parameter, update in zip(parameters, _orthogonal(directions), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(update, alpha=-group["lr"] * scale)

    def _direction(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        assert parameter.grad is not None
        state["momentum"].lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(state["momentum"], momentum)


def build_optimisers(
    model: nn.Module, heads: nn.Module, muon_lr: float = 0.02, adam_lr: float = 0.003
) -> list[torch.optim.Optimizer]:
    """Muon and Adam, each parameter in exactly one of them."""
    matrices: list[nn.Parameter] = []
    others = list(heads.parameters())
    for name, parameter in model.named_parameters():
        is_matrix = parameter.ndim == 2 and not any(word in name for word in _ADAM_ONLY)
        (matrices if is_matrix else others).append(parameter)
    return [Muon(matrices, muon_lr), torch.optim.Adam(others, adam_lr, betas=(0.9, 0.98))]
