"""Which decoding rows share a forward pass. Pure.

In one batch, every row takes the memory and time of the longest. So a long row raises the cost of the short rows in its
batch, while a batch of its own costs one more forward pass over the weights. Each row goes where it adds least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.engine.device.memory import KVFootprint


#: Copying the caches of a longer row takes as long as several decode steps. Beside other rows it is copied a layer per
#: step, or in a step in which nothing is prefilled.
LONG_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Grouping:
    """Costs in bytes read from memory, which is what decoding spends its time on.

    Attributes:
        footprint: bytes of one row's caches, by its length.
        forward_pass_bytes: the cost of a forward pass whatever its rows: the weights, and launching it.
        can_batch_rows: mlx-lm can batch this model's caches; else every row is a batch of its own.
    """

    footprint: KVFootprint
    forward_pass_bytes: int
    can_batch_rows: bool = True

    def place(self, length: int, batches: Sequence[Sequence[int]]) -> int:
        """Index of the batch, given as its rows' lengths, that a row should join; `len(batches)` for a new one."""
        if not self.can_batch_rows:
            return len(batches)
        added = [self._nbytes([*lengths, length]) - self._nbytes(lengths) for lengths in batches]
        added.append(self.footprint.nbytes(length) + self.forward_pass_bytes)
        return min(range(len(added)), key=added.__getitem__)

    def joined(self, batches: Sequence[Sequence[int]], joining: Sequence[int]) -> list[list[int]]:
        """The batches after rows of these lengths have joined one after the other."""
        grown = [list(lengths) for lengths in batches]
        for length in joining:
            index = self.place(length, grown)
            if index == len(grown):
                grown.append([])
            grown[index].append(length)
        return grown

    def cache_bytes(self, batches: Sequence[Sequence[int]]) -> int:
        """Bytes of the caches of these batches."""
        return sum(self._nbytes(lengths) for lengths in batches)

    def _nbytes(self, lengths: Sequence[int]) -> int:
        return len(lengths) * self.footprint.nbytes(max(lengths)) if lengths else 0
