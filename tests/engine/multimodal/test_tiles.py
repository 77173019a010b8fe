"""Tiles of a picture: the processors that cut pictures obey one limit, each by its own name for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import PIL.Image
import pytest
from mlx_vlm import load, prepare_inputs
from mlx_vlm.prompt_utils import apply_chat_template

from periscope.engine import EngineConfig, VisionLanguageEngine
from periscope.engine.multimodal.tiles import limit_tiles
from tests.engine.families.test_captioners import PICTURES
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import VISION_FAMILIES

WIDE, SQUARE = (112, 56), (112, 112)
#: Tokens of a picture by the limit on its tiles: of those that cut, four tiles and more, two, and one.
CUTTING = {
    "idefics3": (SQUARE, 4, 1),
    "smolvlm": (SQUARE, 4, 1),
    "internvl_chat": (SQUARE, 4, 1),
    "llava_next": (SQUARE, 4, 2),
    "lfm2_vl": ((640, 320), 8, 2),
}


def num_tokens(folder: Path, size: tuple[int, int], max_tiles: int | None) -> int:
    """The length of a prompt with a picture of this size."""
    model, processor = load(str(folder), lazy=True)
    if max_tiles is not None:
        limit_tiles(processor.image_processor, max_tiles)
    text = apply_chat_template(processor, model.config, "What?", num_images=1)
    index = getattr(model.config, "image_token_index", None)
    inputs = prepare_inputs(processor, images=[PIL.Image.new("RGB", size)], prompts=text, image_token_index=index)
    return int(inputs["input_ids"].shape[-1])


@pytest.mark.parametrize("name", CUTTING)
def test_fewer_tiles_are_fewer_tokens(name: str, tmp_path: Path) -> None:
    """A limit that the files keep anyway changes nothing; a lower one makes the prompt shorter."""
    folder = write_vision_checkpoint(tmp_path / name, VISION_FAMILIES[name])
    size, as_it_is, fewer = CUTTING[name]
    whole = num_tokens(folder, size, None)
    assert num_tokens(folder, size, as_it_is) == num_tokens(folder, size, 64) == whole
    assert num_tokens(folder, size, fewer) < whole


@pytest.mark.parametrize("name", ["qwen3_vl", "gemma3", "pixtral"])
def test_a_processor_that_cuts_nothing_stays_as_it_is(name: str, tmp_path: Path) -> None:
    """One number for all captioners, also for those that it does not concern."""
    folder = write_vision_checkpoint(tmp_path / name, VISION_FAMILIES[name])
    assert num_tokens(folder, SQUARE, 1) == num_tokens(folder, SQUARE, None)


def test_a_captioner_is_loaded_with_its_limit(tmp_path: Path) -> None:
    """What it sees is cut as its settings say, and it says something else of one tile than of all."""
    folder = write_vision_checkpoint(tmp_path / "smolvlm", VISION_FAMILIES["smolvlm"])

    async def described(max_tiles: int | None) -> tuple[str, int]:
        async with await VisionLanguageEngine.load(str(folder), EngineConfig(max_image_tiles=max_tiles)) as engine:
            return await engine.describe(PICTURES[0], "Describe it.", 12)

    whole, tiled, same = (asyncio.run(described(limit)) for limit in (1, None, 16))
    assert whole != tiled == same
