"""RemoteCaptioner against servers on real sockets: the documented shapes, and every failure."""

from __future__ import annotations

import asyncio
import base64
import io
import json

import PIL.Image
import pytest

from periscope.core import ModelKind, ModelState
from periscope.errors import ServerBusy
from periscope.vision.backends.dialects import DIALECTS
from periscope.vision.backends.remote import RemoteCaptioner
from tests.vision.backends.asking import FLAT, HTML, PATIENCE_S, against, captions, error
from tests.vision.backends.lookalikes import (
    CHAT,
    MODEL,
    SLAMMED,
    Change,
    Lookalike,
    Reply,
    answer,
    captioner_at,
    lmdeploy,
    triton,
    trtllm,
    vllm,
)
from tests.vision.fakes import cancelled

SHAPES = {"vllm": vllm, "lmdeploy": lmdeploy, "triton": triton, "trtllm": trtllm, "openai": vllm}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "streamed"])
def test_each_kind_of_server_describes_a_picture(shape: str, *, is_streamed: bool) -> None:
    """As each documents its answers, the caption is read, and its health and model are found."""
    routes = SHAPES[shape]()
    if is_streamed:
        delta, end = {"content": "A red circle."}, {"index": 0, "delta": {}, "finish_reason": "stop"}
        chunks = [{"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}, {"choices": [end]}]
        told = "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        routes[CHAT] = Reply(told.encode(), headers={"content-type": "text/event-stream"})

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert await captioner.health_check() is None
        assert await captions(captioner, "red") == ["A red circle."]
        status = captioner.status()
        assert (status.name, status.kind, status.state, status.error) == (
            "eyes",
            ModelKind.CAPTIONER,
            ModelState.READY,
            None,
        )

    against(routes, use, "triton" if shape == "trtllm" else shape, is_streamed=is_streamed)


def test_the_request_is_what_all_of_them_take() -> None:
    """One user message, the picture first as a data URL in an object, greedy, bounded; the entry's own fields win."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        await captions(captioner, "red")
        (body,) = server.bodies
        (message,) = body.pop("messages")
        image, text = message["content"]
        url = image["image_url"].pop("url")
        assert image == {"type": "image_url", "image_url": {}}
        assert text == {"type": "text", "text": "What is red?"}
        picture = PIL.Image.open(io.BytesIO(base64.b64decode(url.removeprefix("data:image/png;base64,"))))
        assert (picture.mode, picture.size, picture.getpixel((0, 0))) == ("RGB", (1, 1), (255, 0, 0))
        thinking = {"chat_template_kwargs": {"enable_thinking": False}}
        assert body == {"model": MODEL, "temperature": 0.1, "max_tokens": 99, "stream": False, "seed": 1, **thinking}
        assert server.keys == ["bearer sk-secret"]

    against(vllm(), use, extra_body={"seed": 1, "temperature": 0.1}, key="sk-secret")


@pytest.mark.parametrize("backend", DIALECTS)
def test_a_strict_server_gets_no_field_that_it_does_not_document(backend: str) -> None:
    """`trtllm-serve` refuses unknown fields; vLLM and LMDeploy have thinking switched off."""
    extra = DIALECTS[backend].extra_body
    assert bool(extra) == (backend in ("vllm", "lmdeploy"))


#: What the server does -> what the image becomes, and how many requests that took (two are allowed).
FAILURES: dict[str, tuple[Reply, str, int]] = {
    "500": (error("boom", 500), "the captioner failed", 1),
    "500 of LMDeploy": (Reply(FLAT, 500), "the captioner failed", 1),
    "400": (error("bad picture", 400), "the captioner failed", 1),
    "400 of Triton": (Reply({"detail": "Unknown model: x"}, 400), "the captioner failed", 1),
    "no sight": (error("q/v is not a multimodal model", 400), "the captioner is not available", 1),
    "401": (error("Unauthorized", 401), "the captioner is not available", 1),
    "403": (error("Forbidden", 403), "the captioner is not available", 1),
    "404": (error("The model `x` does not exist.", 404), "the captioner is not available", 1),
    "429": (error("slow down", 429), "busy 5", 2),
    "429 with a short Retry-After": (error("slow down", 429, retry_after="0"), "busy 1", 2),
    "429 with a long Retry-After": (error("slow down", 429, retry_after="33"), "busy 33", 1),
    "503": (error("engine is dead", 503), "the captioner failed", 2),
    "503 with Retry-After": (error("full", 503, retry_after="20"), "busy 20", 1),
    "502": (Reply(b"<html>Bad Gateway</html>", 502), "the captioner failed", 2),
    "garbage JSON": (Reply(b"{nonsense", headers={"content-type": "application/json"}), "the captioner failed", 1),
    "HTML": (HTML, "the captioner failed", 1),
    "another shape": (Reply({"choices": []}), "the captioner failed", 1),
    "an error in a success": (Reply({"error": {"message": "boom"}}), "the captioner failed", 1),
    "cut off": (Reply(answer(), cut=20), "the captioner failed", 1),
    "closed without a word": (SLAMMED, "the captioner failed", 2),
    "endless": (Reply(answer("x" * 70_000)), "the captioner failed", 1),
    "empty": (Reply(answer("")), "the captioner returned nothing", 2),
    "null": (Reply(answer(None)), "the captioner returned nothing", 2),
    "invisible": (Reply(answer("\u200b \n")), "the captioner returned nothing", 2),
    "a redirect": (Reply(status=307, headers={"location": "http://127.0.0.1:1/"}), "the captioner failed", 1),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_told_apart(name: str) -> None:
    """Broken, busy and nothing said are three things; another try is made only where it can help."""
    reply, outcome, num_tries = FAILURES[name]

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        assert await captions(captioner, "red") == [outcome]
        assert server.num_captions == num_tries

    against({**vllm(), CHAT: reply}, use)


@pytest.mark.parametrize("passing", [SLAMMED, error("full", 429), Reply(status=502), error("x", 503, retry_after="1")])
def test_what_passes_by_itself_costs_no_caption(passing: Reply) -> None:
    """A second try gets the caption, after the time that the server asked for."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        assert await captions(captioner, "red") == ["A red circle."]
        assert server.num_captions == 2

    against({**vllm(), CHAT: [passing, Reply(answer())]}, use)


def test_an_empty_caption_is_asked_for_once_more() -> None:
    """The second one counts."""

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert await captions(captioner, "red") == ["Red."]

    against({**vllm(), CHAT: [Reply(answer(" ")), Reply(answer("Red."))]}, use)


@pytest.mark.parametrize(
    "settings", [{"timeout_s": 0.2}, {"read_timeout_s": 0.2}], ids=["of the request", "of reading"]
)
def test_a_slow_server_is_left_when_the_time_is_over(settings: dict[str, float]) -> None:
    """No try is made after a time-out, and the server sees its client leave."""
    never = asyncio.Event()

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        timeout_s = settings.get("timeout_s", PATIENCE_S)
        assert await captions(captioner, "red", timeout_s=timeout_s) == ["the captioner timed out"]
        assert server.num_captions == 1

    against({**vllm(), CHAT: Reply(answer(), gate=never)}, use, read_timeout_s=settings.get("read_timeout_s", 60.0))


def test_one_image_s_failure_is_its_own_and_the_order_stays() -> None:
    """Its neighbours are described."""
    replies = [Reply(answer("One.")), error("boom", 500), Reply(answer("Three."))]

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert await captions(captioner, "red", "blue", "lime") == ["One.", "the captioner failed", "Three."]

    against({**vllm(), CHAT: replies}, use, max_concurrent=1)


def test_no_more_images_than_allowed_are_with_the_server_at_once() -> None:
    """Of one request or of several: the others wait their turn, and all are described."""
    gate = asyncio.Event()

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        asking = [asyncio.create_task(captions(captioner, "red", "blue", "lime")) for _ in range(3)]
        while server.num_open < 2:
            await asyncio.sleep(0.001)
        gate.set()
        assert await asyncio.gather(*asking) == [["A red circle."] * 3] * 3
        assert server.most == 2

    against({**vllm(), CHAT: Reply(answer(), gate=gate)}, use, max_concurrent=2)


def test_too_many_requests_are_busy_and_not_broken() -> None:
    """Who finds the queue full is refused at once; who waits too long behind others is asked to come again."""
    gate = asyncio.Event()

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        first = asyncio.create_task(captions(captioner, "red"))
        while server.num_open < 1:
            await asyncio.sleep(0.001)
        second = asyncio.create_task(captions(captioner, "blue"))
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy, match=r"remote\.max_concurrent"):
            await captions(captioner, "lime")
        assert (captioner.status().num_running, captioner.status().num_waiting) == (1, 1)
        assert await second == ["busy 5"]
        gate.set()
        assert await first == ["A red circle."]
        assert captioner.status().num_running == 0

    against({**vllm(), CHAT: Reply(answer(), gate=gate)}, use, max_concurrent=1, max_waiting=1, wait_timeout_s=0.1)


def test_cancelling_closes_the_connection() -> None:
    """A client that leaves leaves no request behind at the other server."""
    gate = asyncio.Event()

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        asking = asyncio.create_task(captions(captioner, "red"))
        while server.num_open < 1:
            await asyncio.sleep(0.001)
        await cancelled(asking)
        assert captioner.status().num_running == 0

    against({**vllm(), CHAT: Reply(answer(), gate=gate)}, use)


def test_captions_of_another_server_or_model_are_others() -> None:
    """What the cache knows them by holds backend, address and model."""

    async def revisions() -> set[str]:
        found = set()
        for url, backend, model in [("a", "vllm", "m"), ("b", "vllm", "m"), ("a", "triton", "m"), ("a", "vllm", "n")]:
            async with captioner_at(f"http://{url}/v1", backend, model=model) as (captioner, _):
                found.add(captioner.id.revision)
        return found

    assert len(asyncio.run(revisions())) == 4


def test_a_picture_that_a_server_repeats_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    """Nor is the key; what the server said of the fault is."""
    said = error("cannot load data:image/png;base64,iVBORw0KGgo= of you", 400)

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        await captions(captioner, "red")

    against({**vllm(), CHAT: said}, use, key="sk-secret")
    assert "cannot load data:... of you" in caplog.text
    assert "iVBOR" not in caplog.text
    assert "sk-secret" not in caplog.text
