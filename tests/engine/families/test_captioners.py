"""Every family of captioners describes pictures through our own loading and captioner: together as each alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from periscope.captions.caption import Caption
from periscope.config import load
from periscope.core import Image, ModelKind, Tell
from periscope.engine import VisionLanguageEngine
from periscope.errors import ModelLoadError
from periscope.vision.backends.leased import LeasedCaptioner
from periscope.vision.captioner import CaptionerId, CaptionRequest
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import BLIND_FAMILIES, VISION_FAMILIES

MODELS_YAML = Path(__file__).parents[3] / "models.yaml"
#: The captioners of models.yaml -> the architecture that their config.json names.
SHIPPED = {
    "mlx-community/Qwen2-VL-7B-Instruct-4bit": "qwen2_vl",
    "mlx-community/SmolVLM2-500M-Video-Instruct-mlx": "smolvlm",
    "mlx-community/Qwen3-VL-2B-Instruct-4bit": "qwen3_vl",
    "mlx-community/Qwen3-VL-4B-Instruct-4bit": "qwen3_vl",
}


def noise(width: int, height: int) -> Image:
    """A picture that is like no other."""
    pixels = np.random.default_rng(width).integers(0, 255, (height, width, 3), dtype=np.uint8)
    return Image(pixels.tobytes(), width, height, width, height, sha256=str(width))


PICTURES = (noise(64, 64), noise(100, 40), noise(30, 90))
PROMPTS = ("Describe it.", "Describe it.", "Write down any text, word for word, and then describe the image.")


async def captions(engine: VisionLanguageEngine, which: tuple[int, ...]) -> list[str]:
    @asynccontextmanager
    async def lease(_: Tell) -> AsyncIterator[VisionLanguageEngine]:
        yield engine

    captioner = LeasedCaptioner(lease, CaptionerId("tiny", "1"), wait_timeout_s=60.0)
    asked = CaptionRequest(tuple(PICTURES[at] for at in which), tuple(PROMPTS[at] for at in which), 12, 60.0)
    outcomes = await captioner.caption(asked, lambda _: None)
    return [outcome.text if isinstance(outcome, Caption) else repr(outcome) for outcome in outcomes]


@pytest.mark.parametrize("name", [*VISION_FAMILIES, *(f"{name} in 4 bits" for name in sorted(set(SHIPPED.values())))])
def test_pictures_described_together_are_described_as_each_alone(name: str, tmp_path: Path) -> None:
    """Pictures and prompts of unequal sizes change nothing for each other; what is said depends on the picture."""
    family, _, in_bits = name.partition(" ")

    async def run() -> None:
        path = write_vision_checkpoint(tmp_path / family, VISION_FAMILIES[family], is_quantised=bool(in_bits))
        async with await VisionLanguageEngine.load(str(path)) as engine:
            together = await captions(engine, (0, 1, 2))
            alone = [text for at in range(3) for text in await captions(engine, (at,))]
        assert together == alone
        assert together[0] != together[1]

    asyncio.run(run())


@pytest.mark.parametrize("name", BLIND_FAMILIES)
def test_a_family_that_fails_at_every_picture_is_not_loaded(name: str, tmp_path: Path) -> None:
    """It is told at the load, in words, with what to do; not picture by picture. It fails once mlx-vlm is mended."""
    path = write_vision_checkpoint(tmp_path / name, BLIND_FAMILIES[name])
    with pytest.raises(
        ModelLoadError, match=rf"architecture {name}\).* fails at a picture: ValueError.*another captioner"
    ):
        asyncio.run(VisionLanguageEngine.load(str(path)))


def test_every_captioner_that_is_shipped_is_of_a_family_tried_here() -> None:
    """A captioner that models.yaml names is one that was seen to caption."""
    shipped = load(MODELS_YAML, {}, {}, cwd=MODELS_YAML.parent, home=MODELS_YAML.parent)
    named = {model.hf_id for model in shipped.models if model.kind is ModelKind.CAPTIONER} - {None}
    assert named == SHIPPED.keys()
    assert set(SHIPPED.values()) <= VISION_FAMILIES.keys()
