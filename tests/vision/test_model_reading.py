"""A model as the reader: what it writes stands in the block, bounded and cached; its failures cost no answer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from periscope.captions.cache import CaptionCache
from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Tell
from periscope.errors import CaptionEmpty, CaptionFailed, ModelUnavailable, ServerBusy
from periscope.vision.captioner import CaptionerId, CaptionRequest
from periscope.vision.proxy import VisionProxy
from periscope.vision.readers.model_families import ANY_MODEL, family_of
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.reading import ImageReading
from periscope.vision.settings import ProxySettings, ReadingSettings
from tests.vision.chats import BLUE, GREEN, RED, block, texts
from tests.vision.fakes import FakeCaptioner, conversation, png, run

CAPTION = "Colour (0, 0, 255), try 1."


class FakeModel:
    """Answers the same about each picture, and keeps what it was asked."""

    id = CaptionerId("ocr", "1")

    def __init__(self, outcome: CaptionOutcome | Exception) -> None:
        self.outcome = outcome
        self.requests: list[CaptionRequest] = []

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:  # noqa: ARG002
        self.requests.append(request)
        if isinstance(self.outcome, Exception) and not isinstance(self.outcome, CaptionFailed | ServerBusy):
            raise self.outcome
        return (self.outcome,) * len(request.images)


def settings(model: FakeModel, *, max_tokens: int = 100, **changes: object) -> ProxySettings:
    reading = ReadingSettings(ModelReader(model, ANY_MODEL, max_tokens), timeout_s=5.0)
    return ProxySettings(reading=replace(reading, **changes))  # type: ignore[arg-type]


def proxy() -> VisionProxy:
    return VisionProxy(CaptionCache(), reading=ImageReading(CaptionCache()))


def section(text: str) -> str:
    return block(1, "640x480", f"{CAPTION}\n{text}")


def test_what_the_model_writes_stands_in_the_block() -> None:
    """Cleaned, and made once: the next turn has it from the cache."""

    async def test() -> None:
        vision, model = proxy(), FakeModel(Caption("```\nTotal  17.40\n```", num_tokens=9, elapsed_ms=80))
        rewritten = await vision.rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
        assert texts(rewritten) == [[section("[Text in image 1, read by ocr:]\nTotal  17.40")]]
        assert rewritten.vision.reader_ms == 80
        (request,) = model.requests
        assert (request.prompts, request.max_tokens, request.timeout_s) == ((ANY_MODEL.prompt,), 100, 5.0)
        again = await vision.rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
        assert (again.messages, again.vision.reader_ms) == (rewritten.messages, 0)
        assert len(model.requests) == 1

    run(test())


def test_an_empty_answer_is_a_picture_without_text() -> None:
    """It costs no section, and is asked about once."""

    async def test() -> None:
        vision, model = proxy(), FakeModel(CaptionEmpty("the captioner returned nothing"))
        for _ in range(2):
            rewritten = await vision.rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
            assert texts(rewritten) == [[section("").replace("\n\n", "\n")]]
        assert len(model.requests) == 1

    run(test())


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (CaptionFailed("the captioner timed out"), "the reader timed out"),
        (ModelUnavailable("It cannot be loaded."), "the reader is not available"),
        (RuntimeError("boom"), "the reader failed"),
    ],
)
def test_a_failure_is_told_and_tried_again(outcome: Exception, reason: str) -> None:
    """The description stands, the text model is told why the text does not, and the next request has it read."""

    async def test() -> None:
        vision, model = proxy(), FakeModel(outcome)
        rewritten = await vision.rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
        assert texts(rewritten) == [[section(f"[Text in image 1 could not be read: {reason}.]")]]
        model.outcome = Caption("STOP", num_tokens=1)
        mended = await vision.rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
        assert texts(mended) == [[section("[Text in image 1, read by ocr:]\nSTOP")]]

    run(test())


def test_a_busy_model_is_a_busy_server() -> None:
    """As a busy captioner is: a later try has the text."""

    async def test() -> None:
        with pytest.raises(ServerBusy):
            await proxy().rewrite(conversation([BLUE]), FakeCaptioner(), settings(FakeModel(ServerBusy("Busy."))))

    run(test())


def test_a_long_text_is_cut_off_and_says_so() -> None:
    """By the tokens that the model may write, and by the characters that stand in the prompt."""

    async def test() -> None:
        model = FakeModel(Caption("a" * 60, num_tokens=100))
        rewritten = await proxy().rewrite(conversation([BLUE]), FakeCaptioner(), settings(model))
        assert "a" * 60 + "\n(cut off after 100 tokens)" in texts(rewritten)[0][0]
        model = FakeModel(Caption("a" * 60, num_tokens=20))
        rewritten = await proxy().rewrite(conversation([BLUE]), FakeCaptioner(), settings(model, max_chars=10))
        assert "\naaaaaaaaaa\n(cut off after 10 characters)" in texts(rewritten)[0][0]

    run(test())


def test_many_pictures_are_read_a_few_at_a_time() -> None:
    """So that the pixels of a long document are not all in memory; the time limit grows with the pictures."""

    async def test() -> None:
        model = FakeModel(Caption("STOP", num_tokens=1))
        pictures = [png((0, 0, number)) for number in range(7)]
        await proxy().rewrite(conversation(pictures), FakeCaptioner(), settings(model))
        assert [(len(request.images), request.timeout_s) for request in model.requests] == [(4, 20.0), (3, 15.0)]

    run(test())


def test_another_family_or_length_is_read_anew() -> None:
    """The cache never gives what a model wrote when it was asked something else."""

    async def test() -> None:
        vision, model = proxy(), FakeModel(Caption("STOP", num_tokens=1))
        for family, max_tokens in ((ANY_MODEL, 100), (ANY_MODEL, 200), (family_of("GLM-OCR"), 100)):
            reading = ReadingSettings(ModelReader(model, family, max_tokens))
            await vision.rewrite(conversation([RED, GREEN]), FakeCaptioner(), ProxySettings(reading=reading))
        assert [request.prompts[0] for request in model.requests] == [ANY_MODEL.prompt] * 2 + ["Text Recognition:"]

    run(test())
