"""What MLX says of the device that it computes on; asked once, by whoever wants to tell a person."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

from periscope.engine.device.memory import device_budget_bytes


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """What is known of the device that MLX computes on.

    Attributes:
        recommended_bytes: what Metal recommends to keep in use at once; None without Metal.
        budget_bytes: what Periscope uses of it when nothing is configured.
    """

    name: str
    has_metal: bool
    recommended_bytes: int | None
    budget_bytes: int


def device_facts() -> DeviceFacts:
    """The facts of MLX's default device."""
    info = mx.device_info()
    recommended = info.get("max_recommended_working_set_size")
    return DeviceFacts(
        name=str(info.get("device_name", "unknown")),
        has_metal=mx.metal.is_available(),
        recommended_bytes=None if recommended is None else int(recommended),
        budget_bytes=device_budget_bytes(),
    )
