"""Blank stretches are taken out of pictures, and every place in what is left is known in the whole."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from periscope.vision.readers.condensed import MAX_BLANK_PX, Pixels, condensed


def with_dots(height: int, width: int, *dots: tuple[int, int]) -> Pixels:
    """Black, with white pixels at these rows and columns."""
    pixels = np.zeros((height, width, 3), np.uint8)
    for row, column in dots:
        pixels[row, column] = 255
    return pixels


@given(st.data(), st.integers(1, 400), st.integers(1, 400))
def test_what_is_drawn_stays_in_its_order(data: st.DataObject, height: int, width: int) -> None:
    """Nothing that differs from its neighbours is lost, and it is told where it stood."""
    place = st.tuples(st.integers(0, height - 1), st.integers(0, width - 1))
    pixels = with_dots(height, width, *data.draw(st.lists(place, max_size=5)))
    dense = condensed(pixels)
    found = [dense.place(column, row) for row, column in np.argwhere(dense.pixels[:, :, 0] == 255).tolist()]
    assert found == [(column, row) for row, column in np.argwhere(pixels[:, :, 0] == 255).tolist()]
    assert dense.place(0, 0) == (0, 0)
    assert dense.place(*dense.pixels.shape[1::-1]) == (width, height)


def test_only_long_blank_stretches_become_shorter() -> None:
    """A blank screen is nearly nothing; gaps as between lines and columns keep their width."""
    assert condensed(with_dots(1080, 1920)).pixels.shape == (MAX_BLANK_PX, MAX_BLANK_PX, 3)
    assert condensed(with_dots(MAX_BLANK_PX, MAX_BLANK_PX)).pixels.shape == (MAX_BLANK_PX, MAX_BLANK_PX, 3)
    far, near = with_dots(500, 500, (10, 10), (490, 490)), with_dots(60, 60, (10, 10), (50, 50))
    assert condensed(far).pixels.shape == (85, 85, 3)
    assert np.array_equal(condensed(near).pixels, near)
