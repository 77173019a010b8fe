"""LeasedCaptioner over a scripted model: order, retries, failures of single images, and whose time a wait is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Image, Tell, Waiting, WaitStatus
from periscope.errors import CaptionFailed, EngineClosed, GenerationFailed, ServerBusy
from periscope.vision.backends.leased import LeasedCaptioner
from periscope.vision.captioner import CaptionerId, CaptionRequest
from tests.vision.fakes import cancelled, rgb_image, run, settled

ID = CaptionerId("tiny", "r1")
QUEUED = Waiting(WaitStatus.QUEUED, "tiny", 1)
LONG_S = 60.0
Line: TypeAlias = str | Exception | asyncio.Event | None


class ScriptedModel:
    """Answers an image, by its digest, with the next of its lines: None never comes, an exception is raised.

    An event is waited for, and the line after it is the answer.

    Args:
        num_places: of its batch; the images of all requests take them in order of arrival.
        hangs: a place is never free again.
    """

    def __init__(self, *, num_places: int = 99, hangs: bool = False, **lines: list[Line]) -> None:
        self._lines: dict[str, Iterator[Line]] = {name: iter(each) for name, each in lines.items()}
        self._places = asyncio.Semaphore(num_places)
        self._hangs = hangs
        self.calls: list[tuple[str, str, int]] = []
        self.num_running = 0

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        self.calls.append((image.sha256, prompt, max_tokens))
        await self._places.acquire()
        self.num_running += 1
        try:
            on_start()
            await asyncio.sleep(0)
            return await self._line(image.sha256), 5
        finally:
            self.num_running -= 1
            if not self._hangs:
                self._places.release()

    async def _line(self, name: str) -> str:
        match next(self._lines[name]):
            case None:
                await asyncio.Event().wait()
                return ""
            case asyncio.Event() as gate:
                await gate.wait()
                return await self._line(name)
            case Exception() as error:
                raise error
            case text:
                return str(text)


def captioner_over(
    model: ScriptedModel, *, wait_timeout_s: float = LONG_S, clock: Callable[[], float] = lambda: 0.0
) -> LeasedCaptioner:
    @asynccontextmanager
    async def lease(tell: Tell) -> AsyncIterator[ScriptedModel]:
        tell(QUEUED)
        yield model

    return LeasedCaptioner(lease, ID, wait_timeout_s=wait_timeout_s, clock=clock)


async def captions(model: ScriptedModel, asked: CaptionRequest) -> tuple[CaptionOutcome, ...]:
    return await captioner_over(model).caption(asked, ignore)


def ignore(_: Waiting) -> None:
    """Not every test listens."""


async def time_passes(at_least_s: float) -> None:
    """As long as another captioner, which hangs, is waited for."""
    hanging = ScriptedModel(red=[None])
    assert summary(await captions(hanging, request("red", timeout_s=at_least_s))) == [TIMED_OUT]


TIMED_OUT = "the captioner timed out"


def request(*names: str, timeout_s: float = LONG_S) -> CaptionRequest:
    return CaptionRequest(tuple(rgb_image(name) for name in names), ("Describe.",) * len(names), 99, timeout_s)


def summary(outcomes: tuple[CaptionOutcome, ...]) -> list[str | tuple[str, int]]:
    return [_word(outcome) for outcome in outcomes]


def _word(outcome: CaptionOutcome) -> str | tuple[str, int]:
    match outcome:
        case Caption(text, num_tokens):
            return text, num_tokens
        case CaptionFailed():
            return outcome.reason
        case _:
            return "busy"


def test_all_images_are_submitted_at_once_and_answered_in_order() -> None:
    """The worker can batch what it is given together; each image gets its own text."""

    async def test() -> None:
        model = ScriptedModel(red=["A red one."], blue=["A blue one."], green=[" Green. \n"])
        results = asyncio.create_task(captions(model, request("red", "blue", "green")))
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
        results = await captions(model, request("red", "blue"))
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
        assert summary(await captions(model, request("red", "blue"))) == [("Red.", 5), reason]

    run(test())
    assert "boom" not in caplog.text


def test_a_timeout_spares_what_is_done() -> None:
    """When the time is over only the captions that are not there are lost, and their rows are freed."""

    async def test() -> None:
        model = ScriptedModel(red=["Red."], blue=[None])
        results = await captions(model, request("red", "blue", timeout_s=0.02))
        assert summary(results) == [("Red.", 5), TIMED_OUT]
        assert model.num_running == 0

    run(test())


def test_a_retry_gets_no_time_of_its_own() -> None:
    """The timeout is for the whole request, the second try included."""

    async def test() -> None:
        model = ScriptedModel(red=["", None])
        results = await captions(model, request("red", timeout_s=0.02))
        assert summary(results) == [TIMED_OUT]

    run(test())


def test_cancelling_frees_every_row() -> None:
    """A client that leaves leaves no image behind in the model."""

    async def test() -> None:
        model = ScriptedModel(red=[None], blue=[None])
        task = asyncio.create_task(captions(model, request("red", "blue")))
        await settled()
        assert model.num_running == 2
        await cancelled(task)
        assert model.num_running == 0

    run(test())


def test_time_is_counted_from_the_captioners_start() -> None:
    """Each caption tells how long after the captioner began on its request it was there."""

    async def test() -> None:
        ticks = iter([100.0, 100.25, 101.5])
        model = ScriptedModel(red=["Red."], blue=["Blue."])
        results = await captioner_over(model, clock=lambda: next(ticks)).caption(request("red", "blue"), ignore)
        assert [r.elapsed_ms for r in results if isinstance(r, Caption)] == [250, 1500]

    run(test())


def test_what_is_waited_for_is_told() -> None:
    """First what the lease waits for, then how many of the images are done, failed ones among them."""

    async def test() -> None:
        told: list[Waiting] = []
        model = ScriptedModel(num_places=1, red=["Red."], blue=[CaptionFailed("too dark")])
        await captioner_over(model).caption(request("red", "blue"), told.append)
        captioning = [Waiting(WaitStatus.CAPTIONING, "tiny", num_done=done, num_total=2) for done in range(3)]
        assert told == [QUEUED, *captioning]

    run(test())


def test_a_wait_for_others_is_no_time_of_the_captioner() -> None:
    """Behind another request's image for longer than its own time-out, an image is described all the same."""

    async def test() -> None:
        gate = asyncio.Event()
        model = ScriptedModel(num_places=1, red=[gate, "Red."], blue=["Blue."], green=["", "Green."])
        captioner = captioner_over(model)
        first = asyncio.create_task(captioner.caption(request("red"), ignore))
        await settled()
        second = asyncio.create_task(captioner.caption(request("blue", "green", timeout_s=0.05), ignore))
        await time_passes(0.06)
        gate.set()
        assert summary(await second) == [("Blue.", 5), ("Green.", 10)]
        assert summary(await first) == [("Red.", 5)]
        assert captioner.num_in_work == 0

    run(test())


def test_an_image_whose_turn_did_not_come_is_busy_and_those_described_stand() -> None:
    """The wait for others has its own bound; its end is no failure of the captioner, and leaves no row behind.

    A second try of an image stands behind others, like any image.
    """

    async def test() -> None:
        gate = asyncio.Event()
        model = ScriptedModel(
            num_places=2, red=["Red."], blue=["", "too late"], green=[gate, "Green."], black=[gate, "Black."]
        )
        captioner = captioner_over(model, wait_timeout_s=0.05)
        two = asyncio.create_task(captioner.caption(request("red", "blue", timeout_s=LONG_S), ignore))
        others = asyncio.create_task(captioner.caption(request("green", "black"), ignore))
        done, busy = await two
        assert summary((done, busy)) == [("Red.", 5), "busy"]
        assert isinstance(busy, ServerBusy)
        assert busy.retry_after_s >= 1
        assert "wait_timeout_s" in busy.message
        gate.set()
        assert summary(await others) == [("Green.", 5), ("Black.", 5)]
        assert captioner.num_in_work == model.num_running == 0

    run(test())


@pytest.mark.parametrize("num_places", [0, 1], ids=["before it began", "at work"])
def test_a_captioner_that_hangs_is_broken_for_all_who_wait(num_places: int) -> None:
    """Who waits while it works on nothing waits for nobody: the captioner's own time-out holds."""

    async def test() -> None:
        model = ScriptedModel(num_places=num_places, hangs=True, red=[None], blue=[])
        captioner = captioner_over(model)
        first = asyncio.create_task(captioner.caption(request("red", timeout_s=0.02), ignore))
        await settled()
        second = asyncio.create_task(captioner.caption(request("blue", timeout_s=0.02), ignore))
        assert [summary(await each) for each in (first, second)] == [[TIMED_OUT], [TIMED_OUT]]

    run(test())


def test_a_request_s_own_images_are_no_others() -> None:
    """A captioner that is too slow for all images of one request alone has timed out, and is not busy."""

    async def test() -> None:
        model = ScriptedModel(num_places=1, red=["Red."], blue=[None], green=[])
        captioner = captioner_over(model, wait_timeout_s=0.01)
        outcomes = await captioner.caption(request("red", "blue", "green", timeout_s=0.05), ignore)
        assert summary(outcomes) == [("Red.", 5), TIMED_OUT, TIMED_OUT]

    run(test())


def test_a_model_says_itself_why_an_image_failed_or_that_it_is_busy() -> None:
    """Its reason reaches the marker as it is, and busy stays busy, so that the client is asked to try again."""

    async def test() -> None:
        model = ScriptedModel(red=[CaptionFailed("no route")], blue=[ServerBusy("full", retry_after_s=7)], green=["G."])
        failed, busy, done = await captions(model, request("red", "blue", "green"))
        assert summary((failed, done)) == ["no route", ("G.", 5)]
        assert isinstance(busy, ServerBusy)
        assert busy.retry_after_s == 7

    run(test())
