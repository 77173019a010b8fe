"""Images on their way in: refused before anything is captioned, decoded only where they must be."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import ImagePart, Message, Role, Waiting
from periscope.errors import ImageInvalid, ImageSourceRefused, RequestError, ServerStopping
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from tests.vision.chats import BLUE, CUT_OFF, RED, SETTINGS, proxy
from tests.vision.fakes import FakeCaptioner, HandExecutor, conversation, run, settled


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (ImagePart("http://localhost/a.png", "messages[0].content[1]"), ImageSourceRefused),
        (ImagePart("data:;base64,AAAA", "messages[0].content[1]"), ImageInvalid),
        (conversation(["", CUT_OFF])[0].parts[1], ImageInvalid),
    ],
    ids=["remote", "no image", "cut off"],
)
@pytest.mark.parametrize("has_captioner", [True, False])
def test_a_bad_image_is_refused_before_anything_is_captioned(
    part: ImagePart, error: type[RequestError], has_captioner: bool
) -> None:
    """The client's fault is told whether or not there is a captioner, with the first bad part's place."""

    async def test() -> None:
        captioner, told = FakeCaptioner(), list[Waiting]()
        worse = ImagePart("file:/etc/passwd", "messages[0].content[2]")
        message = Message(
            Role.USER, (*conversation([BLUE])[0].parts, part, *([worse] if error is not ImageInvalid else []))
        )
        with pytest.raises(error) as caught:
            await proxy().rewrite([message], captioner if has_captioner else None, SETTINGS, tell=told.append)
        assert caught.value.param == "messages[0].content[1]"
        assert (captioner.requests, told) == ([], [])

    run(test())


def test_what_is_no_picture_is_refused_by_its_beginning() -> None:
    """Nothing of what follows is decoded, so that it is not noticed that its end is no base64."""

    async def test() -> None:
        part = ImagePart(f"data:image/png;base64,{'A' * 2**21}####", "messages[0].content[0]")
        with pytest.raises(ImageInvalid, match=r"could not be read as an image.*Supported are JPEG"):
            await proxy().rewrite([Message(Role.USER, (part,))], FakeCaptioner(), SETTINGS)

    run(test())


@pytest.mark.parametrize("has_begun", [False, True], ids=["before", "meanwhile"])
def test_images_that_cannot_be_read_any_more_because_the_server_stops(has_begun: bool) -> None:
    """An executor that was shut down is not the client's fault, nor a bug: the server is stopping."""

    async def test() -> None:
        executor = ThreadPoolExecutor(1)
        vision, may_end = VisionProxy(CaptionCache(), intake=ImageIntake(executor=executor)), threading.Event()
        executor.submit(may_end.wait)
        if not has_begun:
            executor.shutdown(wait=False, cancel_futures=True)
        rewriting = asyncio.create_task(vision.rewrite(conversation([RED]), FakeCaptioner(), SETTINGS))
        await settled()
        executor.shutdown(wait=False, cancel_futures=True)
        with pytest.raises(ServerStopping):
            await rewriting
        may_end.set()

    run(test())


def test_a_cached_image_is_not_decoded_again() -> None:
    """Later turns read headers only: one call per image, none for pixels."""

    async def test() -> None:
        executor = HandExecutor()
        vision, captioner = VisionProxy(CaptionCache(), intake=ImageIntake(executor=executor)), FakeCaptioner()
        num_calls = []
        for _ in range(2):
            task = asyncio.create_task(vision.rewrite(conversation([RED, BLUE]), captioner, SETTINGS))
            num_calls.append(0)
            while not task.done():
                await settled()
                num_calls[-1] += executor.run_waiting()
        assert num_calls == [4, 2]

    run(test())
