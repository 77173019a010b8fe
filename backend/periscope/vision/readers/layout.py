"""Puts the runs of text that a reader found into reading order: line by line, with indentation. Pure.

Screenshots of code and terminals lose their meaning without indentation, and OCR engines give boxes, not spaces. So the
width of a character is estimated from the boxes, and the gaps before and between runs are filled with spaces.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final

from periscope.vision.readers.reader import TextBox

#: Part of every cache key: raise it when the same boxes give another text.
LAYOUT_VERSION: Final = 2
#: Runs are on one line if the distance of their middles is below this part of the smaller height.
_SAME_LINE: Final = 0.5
#: A gap of at least so many characters in a line keeps its width, as in tables; a smaller one becomes one space.
_WIDE_GAP_CHARS: Final = 2.5
_MAX_BLANKS: Final = 40


def text_of(boxes: Sequence[TextBox]) -> str:
    """The text of a picture, one line of the picture for each line.

    Without a single letter or digit it is empty: OCR engines take drawn shapes for characters, a circle for a bullet.
    """
    boxes = [box for box in boxes if box.text.strip()]
    if not any(char.isalnum() for box in boxes for char in box.text):
        return ""
    left = min(box.left for box in boxes)
    char_px = _char_width(boxes)
    return "\n".join(_line(line, left, char_px) for line in _lines(boxes))


def _char_width(boxes: Sequence[TextBox]) -> float:
    """The width of a character in pixels, from runs that are long enough to tell; at least 1."""
    long = [box for box in boxes if len(box.text) >= 4] or list(boxes)
    return max(1.0, statistics.median((box.right - box.left) / len(box.text) for box in long))


def _lines(boxes: Sequence[TextBox]) -> list[list[TextBox]]:
    """The runs grouped into lines from top to bottom, each from left to right."""
    lines: list[list[TextBox]] = []
    for box in sorted(boxes, key=lambda box: (box.top + box.bottom) / 2):
        last = lines[-1] if lines else None
        if last is not None and _is_beside(box, last):
            last.append(box)
        else:
            lines.append([box])
    return [sorted(line, key=lambda box: box.left) for line in lines]


def _is_beside(box: TextBox, line: Sequence[TextBox]) -> bool:
    """Whether a run is on a line: at the height of one of its runs, and not above or below any of them."""
    is_level = any(
        abs(box.top + box.bottom - other.top - other.bottom) / 2 < _SAME_LINE * min(box.height, other.height)
        for other in line
    )
    return is_level and all(
        min(box.right, other.right) - max(box.left, other.left) < min(box.height, other.height) for other in line
    )


def _line(line: Sequence[TextBox], left: float, char_px: float) -> str:
    """One line: spaces for its indentation, then its runs."""
    text = _blanks(line[0].left - left, char_px)
    for at, box in enumerate(line):
        if at:
            gap = box.left - line[at - 1].right
            text += " " if gap < _WIDE_GAP_CHARS * char_px else _blanks(gap, char_px)
        text += box.text.strip()
    return text


def _blanks(width_px: float, char_px: float) -> str:
    return " " * min(_MAX_BLANKS, max(0, round(width_px / char_px)))
