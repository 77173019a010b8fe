"""OCR models of mlx-vlm's, as readers: asked as their family is, they read pictures together as each alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from periscope.captions.caption import Caption
from periscope.core import Tell
from periscope.engine import VisionLanguageEngine
from periscope.vision.backends.leased import LeasedCaptioner
from periscope.vision.captioner import CaptionerId, CaptionRequest
from periscope.vision.readers.model_families import ANY_MODEL, family_of
from tests.engine.families.ocr_shapes import OCR_FAMILIES
from tests.engine.families.test_captioners import PICTURES
from tests.engine.families.vision_checkpoints import write_vision_checkpoint


async def read(engine: VisionLanguageEngine, prompt: str, *which: int) -> list[str]:
    @asynccontextmanager
    async def lease(_: Tell) -> AsyncIterator[VisionLanguageEngine]:
        yield engine

    pictures = tuple(PICTURES[at] for at in which)
    captioner = LeasedCaptioner(lease, CaptionerId("tiny", "1"), wait_timeout_s=60.0)
    request = CaptionRequest(pictures, (prompt,) * len(pictures), 12, 60.0)
    outcomes = await captioner.caption(request, lambda _: None)
    return [outcome.text if isinstance(outcome, Caption) else repr(outcome) for outcome in outcomes]


@pytest.mark.parametrize("name", OCR_FAMILIES)
def test_pictures_read_together_are_read_as_each_alone(name: str, tmp_path: Path) -> None:
    """With the prompt of its family, which its architecture alone tells; pictures of unequal sizes change nothing."""
    family = family_of(str(tmp_path), name)
    assert family is not ANY_MODEL

    async def run() -> None:
        path = write_vision_checkpoint(tmp_path / "model", OCR_FAMILIES[name])
        async with await VisionLanguageEngine.load(str(path)) as engine:
            together = await read(engine, family.prompt, 0, 1, 2)
            alone = [text for at in range(3) for text in await read(engine, family.prompt, at)]
        assert together == alone
        assert len(set(together)) == 3

    asyncio.run(run())
