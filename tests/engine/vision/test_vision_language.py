"""VisionLanguageEngine on the embedded captioner, through real MLX."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import pytest

from periscope.core import Image
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig, InferenceEngine, VisionLanguageEngine
from periscope.engine.device.turn import DeviceTurn
from periscope.errors import EngineClosed, ModelLoadError
from periscope.vision.images.decode import decode
from periscope.vision.images.limits import ImageLimits
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT
from tests.e2e.drawing import circle, number, square
from tests.vision.fakes import encoded

CAPTIONER = str(EMBEDDED_MODELS["embedded:captioner"])
PICTURES = [circle("red"), square("blue", 400), number("7"), circle("green", 64), square("black", 120), number("305")]


def image_of(index: int) -> Image:
    picture = PICTURES[index]
    width, height = picture.size
    return Image(picture.tobytes(), width, height, width, height, str(index))


def with_captioner(use: Callable[[VisionLanguageEngine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with await VisionLanguageEngine.load(CAPTIONER) as engine:
            await use(engine)

    asyncio.run(run())


def test_captions_of_a_batch_are_those_of_each_image_alone() -> None:
    """Batching changes no word, whatever the sizes of the images."""

    async def use(engine: VisionLanguageEngine) -> None:
        async def describe(index: int) -> tuple[str, int]:
            return await engine.describe(image_of(index), DEFAULT_CAPTION_PROMPT, 64)

        indices = range(len(PICTURES))
        together = await asyncio.gather(*(describe(i) for i in indices))
        assert together == [await describe(i) for i in indices]
        assert all(text and num_tokens > 3 for text, num_tokens in together)
        assert len({text for text, _ in together}) > 1

    with_captioner(use)


def test_pictures_of_extreme_sides_are_described() -> None:
    """A strip that is one pixel wide reaches the captioner in a shape that it accepts."""
    sizes = [(1093, 5), (5, 1093), (1, 4000), (8192, 1), (1024, 11), (1, 1), (2, 90)]

    async def use(engine: VisionLanguageEngine) -> None:
        for width, height in sizes:
            data = encoded(PIL.Image.new("RGB", (width, height), "red"))
            text, _ = await engine.describe(
                decode(data, ImageLimits(), sha256="", param="x"), DEFAULT_CAPTION_PROMPT, 8
            )
            assert text

    with_captioner(use)


def test_max_tokens_bounds_a_caption() -> None:
    """The token limit of a caption holds."""

    async def use(engine: VisionLanguageEngine) -> None:
        _, num_tokens = await engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 3)
        assert num_tokens == 3

    with_captioner(use)


def test_images_start_in_order_when_the_batch_has_a_place() -> None:
    """At most as many images run as the batch takes, and each caller is told once that its image has started."""
    order: list[tuple[str, int]] = []

    async def run() -> None:
        async with await VisionLanguageEngine.load(CAPTIONER, EngineConfig(max_num_seqs=2)) as engine:

            async def describe(index: int) -> None:
                begun = ("begun", index)
                await engine.describe(
                    image_of(index), DEFAULT_CAPTION_PROMPT, 4 + index, on_start=lambda: order.append(begun)
                )
                order.append(("ended", index))

            await asyncio.gather(*(describe(i) for i in range(len(PICTURES))))

    asyncio.run(run())
    assert [index for what, index in order if what == "begun"] == list(range(len(PICTURES)))
    for at in range(len(order)):
        counts = Counter(what for what, _ in order[: at + 1])
        assert 0 <= counts["begun"] - counts["ended"] <= 2


def test_a_cancelled_caption_leaves_its_neighbours_alone() -> None:
    """Waiting or running, a cancelled image frees its row, and the captions of the others do not change."""

    async def use(engine: VisionLanguageEngine) -> None:
        alone = await engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 64)
        kept = asyncio.create_task(engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 64))
        dropped = [asyncio.create_task(engine.describe(image_of(i), DEFAULT_CAPTION_PROMPT, 64)) for i in (1, 2, 3)]
        while engine.num_rows < 4:
            await asyncio.sleep(0)
        for task in dropped:
            task.cancel()
        assert await kept == alone
        await asyncio.wait(dropped)
        assert all(task.cancelled() for task in dropped)
        assert await engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 64) == alone
        assert engine.num_rows == 0

    with_captioner(use)


def test_closing_fails_captions_under_way() -> None:
    """Closing fails the captions that are pending."""

    async def use(engine: VisionLanguageEngine) -> None:
        running = [asyncio.create_task(engine.describe(image_of(i), DEFAULT_CAPTION_PROMPT, 64)) for i in range(4)]
        while engine.num_rows == 0:
            await asyncio.sleep(0)
        await engine.close()
        done = await asyncio.gather(*running, return_exceptions=True)
        assert any(isinstance(outcome, EngineClosed) for outcome in done)
        with pytest.raises(EngineClosed):
            await engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 64)

    with_captioner(use)


def test_text_and_vision_load_and_run_side_by_side() -> None:
    """Two workers import, load and compute at the same time on one device, and neither disturbs the other."""

    async def run() -> None:
        turn = DeviceTurn()
        text = str(EMBEDDED_MODELS["embedded:text"])
        chatting, seeing = await asyncio.gather(
            InferenceEngine.load(text, turn=turn), VisionLanguageEngine.load(CAPTIONER, turn=turn)
        )
        async with chatting, seeing:
            from tests.engine.test_engine import GREEDY

            alone = (await chatting.generate("one two three", GREEDY)).tokens
            described = asyncio.create_task(seeing.describe(image_of(1), DEFAULT_CAPTION_PROMPT, 64))
            assert (await chatting.generate("one two three", GREEDY)).tokens == alone
            assert (await described)[0]

    asyncio.run(run())


def test_a_text_model_is_no_captioner(tiny_text_model: Path) -> None:
    """Naming a text model as captioner is a load error with a clear message."""
    with pytest.raises(ModelLoadError, match="no vision part"):
        asyncio.run(VisionLanguageEngine.load(str(tiny_text_model)))


def test_a_captioner_leaves_the_process_s_wired_limit_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """mlx-vlm raises the limit while a generator lives; it is restored before the first step, and stays."""
    changes: list[str] = []

    @contextmanager
    def wired_limit(*_args: object) -> Iterator[None]:
        changes.append("raised")
        yield
        changes.append("set back")

    monkeypatch.setattr(importlib.import_module("mlx_vlm.generate.ar"), "wired_limit", wired_limit)

    async def use(engine: VisionLanguageEngine) -> None:
        assert changes == ["raised", "set back"] * 2  # for the health check's batch, and for that of all requests
        await engine.describe(image_of(0), DEFAULT_CAPTION_PROMPT, 4)

    with_captioner(use)
    assert changes == ["raised", "set back"] * 2
