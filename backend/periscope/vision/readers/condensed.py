"""Takes blank space out of a picture before an OCR engine reads it. Pure.

RapidOCR weighs what it finds by the picture as a whole, so that a few words on a large blank screen are lost. Rows of
pixels that are the same as their neighbours hold no text, nor do such columns: most of them are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Pixels: TypeAlias = npt.NDArray[np.uint8]
Places: TypeAlias = npt.NDArray[np.intp]

#: What stays of a blank stretch, half of it at each end: columns of a table must not touch.
MAX_BLANK_PX: Final = 64


@dataclass(frozen=True, slots=True)
class Condensed:
    """A picture without its blank stretches.

    Attributes:
        pixels: shape (rows, columns, 3).
        rows, columns: the place of each in the picture as it was, ascending.
    """

    pixels: Pixels
    rows: Places
    columns: Places

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a point stood in the picture as it was."""
        return _at(self.columns, x), _at(self.rows, y)


def condensed(pixels: Pixels) -> Condensed:
    """The picture with at most `MAX_BLANK_PX` equal rows, and equal columns, side by side.

    Args:
        pixels: shape (height, width, 3), of at least one pixel.
    """
    rows, columns = _kept(pixels), _kept(pixels.transpose(1, 0, 2))
    return Condensed(pixels[np.ix_(rows, columns)], rows, columns)


def _kept(lines: Pixels) -> Places:
    """The indices, along the first axis, of all lines but those in the middle of a long stretch of equal ones."""
    changes = np.flatnonzero((lines[1:] != lines[:-1]).any(axis=(1, 2))) + 1
    index, starts, ends = np.arange(len(lines)), np.append(0, changes), np.append(changes, len(lines))
    stretch = np.searchsorted(starts, index, side="right") - 1
    from_edge = np.minimum(index - starts[stretch], ends[stretch] - 1 - index)
    return np.flatnonzero(from_edge < MAX_BLANK_PX // 2)


def _at(places: Places, at: float) -> float:
    """The end of the picture is the place after its last line."""
    inside = max(0, round(at))
    return float(places[inside] if inside < len(places) else places[-1] + 1)
