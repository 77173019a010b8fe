"""How many tiles a picture is cut into: one number, said to each image processor of mlx-vlm in its own way."""

from __future__ import annotations

from math import isqrt
from typing import Any

#: The names of a limit on tiles, of InternVL, LFM2-VL, MiniCPM-V, Molmo and Phi-3-Vision.
_LIMITS = ("dynamic_max_num", "max_tiles", "max_slice_nums", "max_crops", "num_crops")
#: Some processors also have a least number, which must not be above the limit.
_LEAST = ("dynamic_min_num", "min_tiles")


def limit_tiles(image_processor: Any, max_tiles: int) -> None:
    """Cut pictures into at most `max_tiles` tiles. A processor that cuts none, or fewer, stays as it is.

    A thumbnail of the whole picture, which some processors put beside the tiles, does not count.
    """
    for name in (*_LIMITS, *_LEAST):
        limit = getattr(image_processor, name, None)
        if isinstance(limit, int):
            setattr(image_processor, name, min(limit, max_tiles))
    _limit_grids(image_processor, max_tiles)
    _limit_enlarging(image_processor, max_tiles)


def _limit_grids(image_processor: Any, max_tiles: int) -> None:
    """LLaVA-NeXT fits a picture to one of several sizes, each a grid of tiles. The smallest always stays."""
    sizes = getattr(image_processor, "image_grid_pinpoints", None)
    if not sizes:
        return
    tile = image_processor.crop_size
    allowed = [size for size in sizes if size[0] * size[1] <= max_tiles * tile["height"] * tile["width"]]
    image_processor.image_grid_pinpoints = allowed or [min(sizes, key=lambda size: size[0] * size[1])]


def _limit_enlarging(image_processor: Any, max_tiles: int) -> None:
    """Idefics 3 and SmolVLM enlarge every picture to `size` and cut that into tiles of `max_image_size`."""
    tile, size = getattr(image_processor, "max_image_size", None), getattr(image_processor, "size", None)
    if tile and size and tile["longest_edge"] and size["longest_edge"]:
        side_px = min(size["longest_edge"], isqrt(max_tiles) * tile["longest_edge"])
        image_processor.size = {"longest_edge": side_px}
