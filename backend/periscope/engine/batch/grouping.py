"""Which decoding rows share a forward pass. Pure.

All rows of a pass are computed, and held, as if they were as long as the longest of them. So one long row makes its
neighbours dear, while a pass of its own costs reading the weights once more: rows go where they cost least.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.engine.device.memory import KVFootprint


#: The caches of a longer row take as long to copy as several steps: beside other rows that is done a layer at a time,
#: or in a step in which nothing is prefilled.
LONG_TOKENS = 1024


@dataclass(frozen=True, slots=True)
class Grouping:
    """Costs in bytes read, which is what decoding takes its time for.

    Attributes:
        footprint: of one row's caches, by its length.
        pass_bytes: what a forward pass costs whatever its rows: the weights, and what starting it is worth.
        is_possible: mlx-lm can put such caches side by side; else every row decodes by itself.
    """

    footprint: KVFootprint
    pass_bytes: int
    is_possible: bool = True

    def place(self, length: int, batches: Sequence[Sequence[int]]) -> int:
        """Index of the batch (lengths of its rows) that a row should join; their number for a new one."""
        if not self.is_possible:
            return len(batches)
        added = [self._nbytes([*lengths, length]) - self._nbytes(lengths) for lengths in batches]
        added.append(self.footprint.nbytes(length) + self.pass_bytes)
        return min(range(len(added)), key=added.__getitem__)

    def joined(self, batches: Sequence[Sequence[int]], joining: Sequence[int]) -> list[list[int]]:
        """The batches once rows of these lengths have joined, one after the other."""
        grown = [list(lengths) for lengths in batches]
        for length in joining:
            index = self.place(length, grown)
            if index == len(grown):
                grown.append([])
            grown[index].append(length)
        return grown

    def held_bytes(self, batches: Sequence[Sequence[int]]) -> int:
        """What the caches of these batches take."""
        return sum(self._nbytes(lengths) for lengths in batches)

    def _nbytes(self, lengths: Sequence[int]) -> int:
        return len(lengths) * self.footprint.nbytes(max(lengths)) if lengths else 0
