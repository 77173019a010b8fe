"""Of several images that cannot be taken the first is told, and what stands behind one costs nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import ImagePart, Message, Role
from periscope.errors import ImageInvalid
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.vision.fakes import FakeCaptioner, HandExecutor, conversation, png, run, settled

RED = png("red")


@pytest.mark.parametrize("is_reversed", [False, True], ids=["in order", "last first"])
def test_images_behind_one_that_failed_are_not_read(is_reversed: bool) -> None:
    """Eleven files that are no pictures take as long as one; whichever thread is faster, the same one is told."""

    async def test() -> None:
        executor = HandExecutor()
        messages = conversation([RED, b"no picture", RED, b"no picture"])
        vision = VisionProxy(CaptionCache(), intake=ImageIntake(executor=executor))
        task: asyncio.Task[Any] = asyncio.create_task(vision.rewrite(messages, FakeCaptioner(), ProxySettings()))
        await settled()
        futures = [future for future, _ in executor.waiting]
        if is_reversed:
            executor.waiting.reverse()
        executor.run_waiting()
        with pytest.raises(ImageInvalid) as caught:
            await task
        assert caught.value.param == messages[0].images[1].param
        was_read = [future.exception() is None for future in futures]
        assert was_read == [True, False, is_reversed, False]

    run(test())


def test_an_image_that_fails_holds_up_none_of_another_request() -> None:
    """Each request knows its own failures only."""

    async def test() -> None:
        vision = VisionProxy(CaptionCache())
        bad = Message(Role.USER, (ImagePart("data:image/png;base64,AAAA", "bad"),))
        failed, fine = await asyncio.gather(
            vision.rewrite([bad], FakeCaptioner(), ProxySettings()),
            vision.rewrite(conversation([RED]), FakeCaptioner(), ProxySettings()),
            return_exceptions=True,
        )
        assert isinstance(failed, ImageInvalid)
        assert not isinstance(fine, BaseException)

    run(test())
