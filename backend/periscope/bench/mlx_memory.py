"""PeakMemory: the most that MLX allocates in this process while something runs."""

from __future__ import annotations

import mlx.core as mx


class PeakMemory:
    """Begins to measure when it is made. MLX has one peak per process: only one measures at a time."""

    def __init__(self) -> None:
        mx.reset_peak_memory()
        self._before = mx.get_active_memory()

    @property
    def bytes(self) -> int:
        """The peak since then, above what was allocated before."""
        return max(0, mx.get_peak_memory() - self._before)
