"""What a captioner is asked, and what becomes of images when it breaks or is busy."""

from __future__ import annotations

import asyncio

import pytest

from periscope.captions.caption import CaptionOutcome
from periscope.core import Tell, VisionUsage
from periscope.errors import (
    CaptionerUnavailable,
    EngineClosed,
    ModelLoadError,
    ModelUnavailable,
    PeriscopeError,
    ServerBusy,
    ServerStopping,
)
from periscope.vision.captioner import CaptionerId, CaptionRequest
from periscope.vision.captioning import caption_key
from periscope.vision.images.limits import ImageLimits
from periscope.vision.settings import OnError, ProxySettings
from tests.vision.chats import BLUE, GREEN, RED, RED_PIXEL, SETTINGS, proxy, texts
from tests.vision.fakes import FakeCaptioner, conversation, run, settled


def test_the_captioner_gets_what_was_set() -> None:
    """Prompt, length, time and picture size are the model's settings."""

    async def test() -> None:
        captioner = FakeCaptioner()
        settings = ProxySettings(prompt="Say.", max_tokens=5, timeout_s=7.5, limits=ImageLimits(max_side_px=64))
        await proxy().rewrite(conversation([BLUE, "How many?"]), captioner, settings)
        (request,) = captioner.requests
        assert (request.prompts, request.max_tokens, request.timeout_s) == (("Say.",), 5, 7.5)
        image = request.images[0]
        assert (image.width, image.height, image.source_width, image.source_height) == (64, 48, 640, 480)

    run(test())


def test_a_question_goes_along_with_its_image() -> None:
    """With questions on, each message's text reaches the captioner, with all others in one place of its queue."""

    async def test() -> None:
        vision, captioner = proxy(), FakeCaptioner()
        settings = ProxySettings(prompt="Say.", use_question=True)
        await vision.rewrite(conversation([RED, BLUE, "How many?"], ["Why?", RED]), captioner, settings)
        (request,) = captioner.requests
        asked = [prompt.removeprefix("Say.\nThe image comes with this message: ") for prompt in request.prompts]
        assert asked == ["How many?", "How many?", "Why?"]
        assert len(request.images) == 3
        await vision.rewrite(conversation([RED, BLUE, "How many?"]), captioner, settings)
        assert len(captioner.requests) == 1
        await vision.rewrite(conversation([RED, "Which?"]), captioner, settings)
        assert len(captioner.requests) == 2

    run(test())


def test_captioners_do_not_share_captions() -> None:
    """Another captioner, or another revision, describes for itself."""

    async def test() -> None:
        vision = proxy()
        captioners = [FakeCaptioner(captioner_id=CaptionerId("fake", revision)) for revision in ("1", "2")]
        for captioner in captioners:
            await vision.rewrite(conversation([RED]), captioner, SETTINGS)
        assert [len(captioner.requests) for captioner in captioners] == [1, 1]

    run(test())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelUnavailable("gone"), "the captioner is not available"),
        (ModelLoadError("no such file"), "the captioner is not available"),
        (EngineClosed("closed"), "the captioner is not available"),
        (RuntimeError("SECRET"), "the captioner failed"),
    ],
)
def test_a_captioner_that_breaks_costs_only_its_captions(
    error: Exception, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Every image is marked, or the request gets an error; nothing is kept, and the next try may succeed."""

    async def test() -> None:
        vision, captioner = proxy(), FakeCaptioner(error=error)
        rewritten = await vision.rewrite(conversation([RED, BLUE]), captioner, SETTINGS)
        assert [f"could not be read: {reason}. " in text for text in texts(rewritten)[0]] == [True, True]
        assert rewritten.vision == VisionUsage(num_images=2, num_failed=2)
        with pytest.raises(CaptionerUnavailable, match=reason):
            await vision.rewrite(conversation([RED]), captioner, ProxySettings(on_error=OnError.ERROR))
        captioner.error = None
        healed = await vision.rewrite(conversation([RED]), captioner, ProxySettings(on_error=OnError.ERROR))
        assert healed.vision.num_failed == 0

    run(test())
    assert f"2 of 2 images were not described: {reason}" in caplog.text
    assert "SECRET" not in caplog.text
    if isinstance(error, PeriscopeError):
        assert error.message in caplog.text


@pytest.mark.parametrize("error", [ServerBusy("Queue full.", retry_after_s=7), ServerStopping("Stopping.")])
@pytest.mark.parametrize("on_error", OnError)
def test_a_busy_captioner_is_told_and_never_marked(error: ServerBusy, on_error: OnError) -> None:
    """Chats and captions on their own, who asked first and who joined: all are told to come again, and then may."""

    async def test() -> None:
        gate, told = asyncio.Event(), asyncio.Event()
        vision, captioner = proxy(), FakeCaptioner(error=error, gate=gate)
        settings = ProxySettings(on_error=on_error)
        leader = asyncio.create_task(vision.rewrite(conversation([RED, BLUE]), captioner, settings))
        await captioner.started.wait()
        joined = asyncio.create_task(
            vision.rewrite(conversation([GREEN, RED]), captioner, settings, tell=lambda _: told.set())
        )
        await told.wait()
        described = asyncio.create_task(vision.describe(conversation([BLUE])[0].images, captioner, settings))
        await settled()
        gate.set()
        refused = await asyncio.gather(leader, joined, described, return_exceptions=True)
        assert [(type(each), getattr(each, "retry_after_s", None)) for each in refused] == [
            (type(error), error.retry_after_s)
        ] * 3
        captioner.error = None
        assert (await vision.rewrite(conversation([RED, BLUE, GREEN]), captioner, settings)).vision.num_failed == 0

    run(test())


@pytest.mark.parametrize("on_error", OnError)
def test_one_image_whose_turn_did_not_come_is_busy_and_keeps_the_others_captions(on_error: OnError) -> None:
    """No marker stands for it, whatever `on_error` says; the next try has only that image described."""

    async def test() -> None:
        vision, captioner = proxy(), FakeCaptioner(failures={RED_PIXEL: ServerBusy("Crowded.", retry_after_s=4)})
        settings = ProxySettings(on_error=on_error)
        with pytest.raises(ServerBusy) as caught:
            await vision.rewrite(conversation([RED, BLUE]), captioner, settings)
        assert caught.value.retry_after_s == 4
        captioner.failures.clear()
        assert (await vision.rewrite(conversation([RED, BLUE]), captioner, settings)).vision.num_failed == 0
        assert [len(request.images) for request in captioner.requests] == [2, 1]

    run(test())


def test_a_captioner_that_answers_too_little_has_failed() -> None:
    """Captions that cannot be matched to images are not guessed at."""

    class Forgetful(FakeCaptioner):
        async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
            return (await super().caption(request, tell))[1:]

    async def test() -> None:
        rewritten = await proxy().rewrite(conversation([RED]), Forgetful(), SETTINGS)
        assert "could not be read: the captioner failed." in texts(rewritten)[0][0]

    run(test())


BASE = caption_key(image_sha256="0", captioner=CaptionerId("c", "r"), prompt="p", max_tokens=256, max_side_px=1024)


@pytest.mark.parametrize(
    "key",
    [
        caption_key(image_sha256="1", captioner=CaptionerId("c", "r"), prompt="p", max_tokens=256, max_side_px=1024),
        caption_key(image_sha256="0", captioner=CaptionerId("d", "r"), prompt="p", max_tokens=256, max_side_px=1024),
        caption_key(image_sha256="0", captioner=CaptionerId("c", "s"), prompt="p", max_tokens=256, max_side_px=1024),
        caption_key(image_sha256="0", captioner=CaptionerId("c", "r"), prompt="q", max_tokens=256, max_side_px=1024),
        caption_key(image_sha256="0", captioner=CaptionerId("c", "r"), prompt="p", max_tokens=255, max_side_px=1024),
        caption_key(image_sha256="0", captioner=CaptionerId("c", "r"), prompt="p", max_tokens=256, max_side_px=512),
        caption_key(image_sha256="0", captioner=CaptionerId("cr", ""), prompt="p", max_tokens=256, max_side_px=1024),
    ],
)
def test_a_key_tells_apart_whatever_changes_a_caption(key: str) -> None:
    """Picture, captioner, revision, prompt, length and picture size each make another caption."""
    assert key != BASE


def test_keys_are_the_same_in_every_process() -> None:
    """Keys are written to disk: this one is pinned."""
    assert BASE == "caption/0/5800fcbb80d0dcbb0945d636fea8e9f4"
