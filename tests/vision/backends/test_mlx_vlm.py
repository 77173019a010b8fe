"""MlxVlmCaptioner over a scripted model: order, retries, timeouts, failures of single images."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from periscope.core import Image
from periscope.errors import CaptionFailed, EngineClosed, GenerationFailed
from periscope.vision.backends.mlx_vlm import MlxVlmCaptioner
from periscope.vision.captioner import Caption, CaptionerId, CaptionRequest
from tests.vision.fakes import cancelled, rgb_image, run, settled

ID = CaptionerId("tiny", "r1")


class ScriptedModel:
    """Answers an image, by its digest, with the next of its texts: None never comes, an exception is raised."""

    is_alive = True

    def __init__(self, **answers: list[str | Exception | None]) -> None:
        self._answers: dict[str, Iterator[str | Exception | None]] = {k: iter(v) for k, v in answers.items()}
        self.calls: list[tuple[str, str, int]] = []
        self.num_running = 0

    async def describe(self, image: Image, prompt: str, max_tokens: int) -> tuple[str, int]:
        self.calls.append((image.sha256, prompt, max_tokens))
        self.num_running += 1
        try:
            await asyncio.sleep(0)
            answer = next(self._answers[image.sha256])
            if answer is None:
                await asyncio.Event().wait()
            if isinstance(answer, Exception):
                raise answer
            return answer or "", 5
        finally:
            self.num_running -= 1


def request(*names: str, timeout_s: float = 60.0) -> CaptionRequest:
    return CaptionRequest(tuple(rgb_image(name) for name in names), ("Describe.",) * len(names), 99, timeout_s)


def summary(results: tuple[Caption | CaptionFailed, ...]) -> list[str | tuple[str, int]]:
    return [(r.text, r.num_tokens) if isinstance(r, Caption) else r.reason for r in results]


def test_all_images_are_submitted_at_once_and_answered_in_order() -> None:
    """The worker can batch what it is given together; each image gets its own text."""

    async def test() -> None:
        model = ScriptedModel(red=["A red one."], blue=["A blue one."], green=[" Green. \n"])
        results = asyncio.create_task(MlxVlmCaptioner(model, ID).caption(request("red", "blue", "green")))
        while not model.calls:
            await asyncio.sleep(0)
        assert model.num_running == 3
        assert summary(await results) == [("A red one.", 5), ("A blue one.", 5), ("Green.", 5)]
        assert model.calls[0] == ("red", "Describe.", 99)

    run(test())


@pytest.mark.parametrize("nothing", ["", " \n\t", "\u200b\x00"])
def test_an_empty_caption_is_asked_for_once_more(nothing: str) -> None:
    """Nothing a reader could see counts as empty: one retry, whose tokens are counted, then a failure."""

    async def test() -> None:
        model = ScriptedModel(red=[nothing, "Red."], blue=[nothing, nothing, "too late"])
        results = await MlxVlmCaptioner(model, ID).caption(request("red", "blue"))
        assert summary(results) == [("Red.", 10), "the captioner returned nothing"]

    run(test())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (GenerationFailed("boom"), "the captioner failed"),
        (ValueError("boom"), "the captioner failed"),
        (EngineClosed("gone"), "the captioner is not available"),
    ],
)
def test_one_images_failure_is_its_own(error: Exception, reason: str, caplog: pytest.LogCaptureFixture) -> None:
    """Its neighbours are described; the log says what happened without saying what was in the picture."""

    async def test() -> None:
        model = ScriptedModel(red=["Red."], blue=[error])
        assert summary(await MlxVlmCaptioner(model, ID).caption(request("red", "blue"))) == [("Red.", 5), reason]

    run(test())
    assert "boom" not in caplog.text


def test_a_timeout_spares_what_is_done() -> None:
    """When the time is over only the captions that are not there are lost, and their rows are freed."""

    async def test() -> None:
        model = ScriptedModel(red=["Red."], blue=[None])
        results = await MlxVlmCaptioner(model, ID).caption(request("red", "blue", timeout_s=0.02))
        assert summary(results) == [("Red.", 5), "the captioner timed out"]
        assert model.num_running == 0

    run(test())


def test_a_retry_gets_no_time_of_its_own() -> None:
    """The timeout is for the whole request, the second try included."""

    async def test() -> None:
        model = ScriptedModel(red=["", None])
        results = await MlxVlmCaptioner(model, ID).caption(request("red", timeout_s=0.02))
        assert summary(results) == ["the captioner timed out"]

    run(test())


def test_cancelling_frees_every_row() -> None:
    """A client that leaves leaves no image behind in the model."""

    async def test() -> None:
        model = ScriptedModel(red=[None], blue=[None])
        task = asyncio.create_task(MlxVlmCaptioner(model, ID).caption(request("red", "blue")))
        await settled()
        assert model.num_running == 2
        await cancelled(task)
        assert model.num_running == 0

    run(test())


def test_time_is_counted_from_the_captioners_start() -> None:
    """Each caption tells how long after the start of its request it was there."""

    async def test() -> None:
        ticks = iter([100.0, 100.25, 101.5])
        model = ScriptedModel(red=["Red."], blue=["Blue."])
        results = await MlxVlmCaptioner(model, ID, clock=lambda: next(ticks)).caption(request("red", "blue"))
        assert [r.elapsed_ms for r in results if isinstance(r, Caption)] == [250, 1500]

    run(test())


def test_health_is_the_models() -> None:
    """Captions can be expected while the model is alive."""

    async def test() -> None:
        model = ScriptedModel()
        captioner = MlxVlmCaptioner(model, ID)
        assert await captioner.health_check()
        model.is_alive = False
        assert not await captioner.health_check()
        assert captioner.id == ID

    run(test())
