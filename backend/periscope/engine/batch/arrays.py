"""What MLX has no function for."""

from __future__ import annotations

import mlx.core as mx


def with_rows(array: mx.array, indices: mx.array, rows: mx.array) -> mx.array:
    """The array `(all, ...)` with `rows` in these places; the input is not changed.

    An assignment to places of an array would change what every name of it stands for.
    """
    changed = array[:]
    changed[indices] = rows
    return changed
