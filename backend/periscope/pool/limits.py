"""PoolLimits: what the pool may take, and what it makes requests wait. Plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """What the pool may take, and what it makes requests wait.

    Attributes:
        budget_bytes: for all models together.
        max_waiting: requests that may wait for one model, beyond those that its batch takes.
        wait_timeout_s: longest wait for a place, the load of the model itself left out.
    """

    budget_bytes: int
    max_waiting: int = 10
    wait_timeout_s: float = 30.0
