"""Images of the web in a conversation: fetched once, remembered, and counted while they are here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from periscope.captions.cache import CaptionCache
from periscope.core import ImagePart, Message, Role
from periscope.errors import ImageInvalid, ImageNotFetched, ImageSourceRefused, InvalidRequest
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.images.remote import RemoteImages
from periscope.vision.intake import ImageIntake
from periscope.vision.looking import Look, Looking
from periscope.vision.proxy import VisionProxy
from tests.vision.chats import BLUE, RED, RED_PIXEL, SETTINGS, proxy, texts
from tests.vision.fakes import FakeCaptioner, cancelled, data_url, png, run, settled


class Web:
    """Pictures by address; what is not there is an error, as from the fetcher."""

    def __init__(self, **files: bytes) -> None:
        self.files = {f"https://example.com/{name}": data for name, data in files.items()}
        self.fetched: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def fetch(self, url: str, *, max_bytes: int, check_head: Callable[[bytes], object], param: str) -> bytes:
        self.fetched.append(url)
        await self.gate.wait()
        if url not in self.files:
            raise ImageNotFetched("gone", param=param)
        data = self.files[url]
        assert len(data) <= max_bytes
        check_head(data[:1024])
        return data


def turn(*urls: str) -> Message:
    """A message with these images; a bare name is one of the web's."""
    whole = [url if ":" in url else f"https://example.com/{url}" for url in urls]
    return Message(Role.USER, tuple(ImagePart(url, f"messages[0].content[{at}]") for at, url in enumerate(whole)))


def vision(web: Web, in_flight: BytesInFlight | None = None, **remote: object) -> VisionProxy:
    images = RemoteImages(web.fetch, **remote)  # type: ignore[arg-type]
    return VisionProxy(CaptionCache(), intake=ImageIntake(in_flight=in_flight, remote=images))


def test_a_conversation_goes_on_when_its_picture_has_gone() -> None:
    """The address stands for what was there first: nothing is fetched again, and the prompt stays as it was."""

    async def test() -> None:
        web, captioner = Web(a=RED, b=BLUE), FakeCaptioner()
        pictures = vision(web)
        first = await pictures.rewrite([turn("a", data_url(RED), "b", "a")], captioner, SETTINGS)
        web.files.clear()
        again = await pictures.rewrite([turn("a", data_url(RED), "b", "a"), turn("a")], captioner, SETTINGS)
        assert texts(again)[0] == texts(first)[0]
        assert [text.split(",")[0] for text in texts(first)[0]] == [f"[Image {number}" for number in (1, 2, 3, 4)]
        assert web.fetched == ["https://example.com/a", "https://example.com/b"]

    run(test())


def test_what_has_no_description_yet_is_fetched_again() -> None:
    """A caption that failed is made in the next turn; if the picture has changed by then, the client is told, once."""

    async def test() -> None:
        web, captioner = Web(a=RED), FakeCaptioner(failures={RED_PIXEL: "failed"})
        pictures = vision(web)
        for _ in range(2):
            await pictures.rewrite([turn("a")], captioner, SETTINGS)
        assert len(web.fetched) == len(captioner.requests) == 2
        web.files["https://example.com/a"] = BLUE
        with pytest.raises(ImageNotFetched, match="another one than in an earlier turn"):
            await pictures.rewrite([turn("a")], captioner, SETTINGS)
        assert "Colour (0, 0, 255)" in texts(await pictures.rewrite([turn("a")], captioner, SETTINGS))[0][0]

    run(test())


def test_an_address_is_forgotten_after_a_day_without_use() -> None:
    """Then what is there now counts."""

    async def test() -> None:
        now, web, captioner = [0.0], Web(a=RED), FakeCaptioner()
        pictures = vision(web, clock=lambda: now[0])
        for hours in (0, 23, 46, 71):
            now[0] = hours * 3600.0
            await pictures.rewrite([turn("a")], captioner, SETTINGS)
        assert len(web.fetched) == 2

    run(test())


@pytest.mark.parametrize(
    ("urls", "error", "param"),
    [
        (["a", "gone", "b"], ImageNotFetched, 1),
        (["a", "http:/not.written/right"], ImageNotFetched, 1),
        (["gone", "file:/etc/passwd"], ImageSourceRefused, 1),
        (["a", "text"], ImageInvalid, 1),
        (["a", "b", "text", "gone"], InvalidRequest, 3),
    ],
)
def test_a_bad_image_of_the_web_is_refused_before_captioning(
    urls: list[str], error: type[Exception], param: int
) -> None:
    """With the place of the part, and nothing stays counted."""

    async def test() -> None:
        web, captioner, in_flight = Web(a=RED, b=BLUE, text=b"<html>"), FakeCaptioner(), BytesInFlight()
        with pytest.raises(error) as caught:
            await vision(web, in_flight, max_per_request=3).rewrite([turn(*urls)], captioner, SETTINGS)
        assert getattr(caught.value, "param", "") == f"messages[0].content[{param}]"
        assert (captioner.requests, in_flight.held_bytes) == ([], 0)

    run(test())


def test_the_largest_that_may_come_is_held_until_it_is_here() -> None:
    """Then only what came is held, and who waits gets room; a client that leaves gives all of it back."""

    async def test() -> None:
        web, in_flight, gate = Web(a=RED, b=BLUE), BytesInFlight(), asyncio.Event()
        pictures, captioner = vision(web, in_flight), FakeCaptioner(gate=gate)
        web.gate.clear()
        task = asyncio.create_task(pictures.rewrite([turn("a", "b")], captioner, SETTINGS))
        await settled()
        assert in_flight.held_bytes >= 2 * SETTINGS.limits.max_bytes
        web.gate.set()
        await captioner.started.wait()
        assert 0 < in_flight.held_bytes < SETTINGS.limits.max_bytes
        gate.set()
        await task
        web.files["https://example.com/c"] = png("lime")
        web.gate.clear()
        leaving = asyncio.create_task(pictures.rewrite([turn("c")], captioner, SETTINGS))
        await settled()
        await cancelled(leaving)
        assert in_flight.held_bytes == 0

    run(test())


def test_without_the_setting_the_error_names_it() -> None:
    """Nothing is fetched unless somebody asked for it."""

    async def test() -> None:
        with pytest.raises(ImageSourceRefused, match=r"server\.remote_images\.enabled"):
            await proxy().rewrite([turn("a")], FakeCaptioner(), SETTINGS)

    run(test())


def test_a_picture_that_has_gone_is_not_looked_at_again() -> None:
    """Its caption stands, but a new question cannot be answered, and the text model is told so."""

    async def test() -> None:
        web, captioner = Web(a=RED), FakeCaptioner()
        pictures = vision(web)
        async with Looking() as looking:
            await pictures.rewrite([turn("a")], captioner, SETTINGS, looking=looking)
            assert "Colour (255, 0, 0)" in await looking.look(Look("image 1", "What?"), lambda _: None)
        web.files.clear()
        async with Looking() as looking:
            await pictures.rewrite([turn("a")], captioner, SETTINGS, looking=looking)
            assert "Colour (255, 0, 0)" in await looking.look(Look("image 1", "What?"), lambda _: None)
            assert "it could not be fetched again" in await looking.look(Look("image 1", "Why?"), lambda _: None)

    run(test())
