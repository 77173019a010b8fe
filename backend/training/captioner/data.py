"""Training data of the demo captioner: pictures as patches, rendered once into shards of uint8 arrays.

Run `python -m training.captioner.data --out DIR --first 0 --count 30` (from backend/).
"""

import argparse
import json
import math
import random
from collections import defaultdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from training.captioner.pictures import UNKNOWN_LABEL, Picture, Wish, draw_picture

PATCH_PX = 14
MERGE = 2
MIN_PIXELS = 15_000  # with MAX_PIXELS: any square picture becomes 140 x 140
MAX_PIXELS = 19_700
FIRST_TRAINING_SEED = 1_000_000  # the seeds below belong to the tests
SHARD_PICTURES = 4_000
SHARES = {"one": 25, "two": 16, "three": 10, "number": 34, "nothing": 1, "complex": 8, "unnamed": 6}

Uint8s = npt.NDArray[np.uint8]


def input_size(width: int, height: int) -> tuple[int, int]:
    """Width and height to which mlx-vlm's qwen3_vl processor resizes (Source: its `_smart_resize_image`)."""
    factor = PATCH_PX * MERGE
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if new_height * new_width > MAX_PIXELS:
        beta = math.sqrt(height * width / MAX_PIXELS)
        new_height = max(factor, math.floor(height / beta / factor) * factor)
        new_width = max(factor, math.floor(width / beta / factor) * factor)
    elif new_height * new_width < MIN_PIXELS:
        beta = math.sqrt(MIN_PIXELS / (height * width))
        new_height = math.ceil(height * beta / factor) * factor
        new_width = math.ceil(width * beta / factor) * factor
    return new_width, new_height


def patches_of(image: Image.Image) -> tuple[Uint8s, int, int]:
    """The picture as the processor cuts it: uint8 (rows * columns, 3 * 14 * 14), with rows and columns.

    Patches are in the order of the merged 2 x 2 cells.
    """
    width, height = input_size(*image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    rows, columns = height // PATCH_PX, width // PATCH_PX
    cells = np.asarray(resized).reshape(rows // MERGE, MERGE, PATCH_PX, columns // MERGE, MERGE, PATCH_PX, 3)
    ordered = cells.transpose(0, 3, 1, 4, 6, 2, 5)
    return ordered.reshape(rows * columns, 3 * PATCH_PX * PATCH_PX), rows, columns


def merged_order(labels: Uint8s) -> Uint8s:
    """Labels (3, rows, columns) in the order of `patches_of`: (3, rows * columns)."""
    count, rows, columns = labels.shape
    cells = labels.reshape(count, rows // MERGE, MERGE, columns // MERGE, MERGE)
    return cells.transpose(0, 1, 3, 2, 4).reshape(count, rows * columns)


def labels_of(picture: Picture, rows: int, columns: int) -> Uint8s:
    """Labels (3, rows * columns); 255 where the picture has none."""
    if not picture.background:
        return np.full((3, rows * columns), UNKNOWN_LABEL, np.uint8)
    return merged_order(picture.labels(rows, columns))


def render_shard(index: int, out: Path, shares: dict[str, float], num_pictures: int = SHARD_PICTURES) -> None:
    """Writes one shard: per patch grid the patches, labels and captions."""
    rng = random.Random(index)
    grids: dict[tuple[int, int], list[tuple[Uint8s, Uint8s, str]]] = defaultdict(list)
    for number in range(num_pictures):
        category = rng.choices(list(shares), list(shares.values()))[0]
        seed = FIRST_TRAINING_SEED + index * SHARD_PICTURES + number
        picture = draw_picture(seed, Wish(category))
        patches, rows, columns = patches_of(picture.image)
        grids[rows, columns].append((patches, labels_of(picture, rows, columns), picture.caption))
    arrays: dict[str, Uint8s] = {}
    captions = {}
    for (rows, columns), samples in grids.items():
        name = f"{rows}x{columns}"
        arrays[f"{name}.patches"] = np.stack([s[0] for s in samples])
        arrays[f"{name}.labels"] = np.stack([s[1] for s in samples])
        captions[name] = [s[2] for s in samples]
    out.mkdir(parents=True, exist_ok=True)
    (out / f"shard_{index:03d}.json").write_text(json.dumps(captions))
    unfinished = out / f"unfinished_{index:03d}.npz"
    np.savez(unfinished, allow_pickle=False, **arrays)
    unfinished.rename(out / f"shard_{index:03d}.npz")


def main() -> None:
    """Renders the shards asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--step", type=int, default=1, help="render every step-th shard (several processes)")
    parser.add_argument("--shares", type=json.loads, default=SHARES, help="share of each category, as JSON")
    arguments = parser.parse_args()
    for index in range(arguments.first, arguments.first + arguments.count, arguments.step):
        render_shard(index, arguments.out, arguments.shares)
        print(f"shard {index}", flush=True)


if __name__ == "__main__":
    main()
