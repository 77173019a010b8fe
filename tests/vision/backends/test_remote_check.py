"""The health check of a remote captioner: what is wrong, how to mend it, and that it is noticed when all is well."""

from __future__ import annotations

import asyncio

import pytest

from periscope.core import ModelState, VisionMode
from periscope.errors import ImageRejected
from periscope.serving.disabled_images import without_images
from periscope.serving.models import ServedModel
from periscope.vision.backends.remote import RemoteCaptioner
from tests.vision.backends.asking import HTML, against, captions, error
from tests.vision.backends.lookalikes import (
    CHAT,
    MODELS,
    Change,
    Lookalike,
    Reply,
    Routes,
    captioner_at,
    lookalike,
    vllm,
)
from tests.vision.fakes import cancelled, conversation, run

BLIND = error("At most 0 image(s) may be provided in one prompt.", 400)


def refusal_of_a_periscope() -> str:
    """What another Periscope says of a picture for a model whose vision is disabled."""
    with pytest.raises(ImageRejected) as caught:
        without_images(conversation([b""]), ServedModel("demo", (), 0, None, VisionMode.DISABLED))
    return caught.value.message


#: What the server does -> parts of the sentence that helps.
MISCONFIGURED: dict[str, tuple[Routes, str, tuple[str, ...]]] = {
    "no such model": (
        {MODELS: Reply({"data": [{"id": "a"}, {"id": "b"}]}), CHAT: error("no", 404)},
        "/v1",
        ("does not serve 'Qwen/Qwen2-VL-7B-Instruct'; it serves a, b.", "`remote.model`"),
    ),
    "a model without sight": ({CHAT: BLIND}, "/v1", ("cannot see pictures: At most 0 image", "vision-language model")),
    "a Periscope's model without sight": (
        {CHAT: error(refusal_of_a_periscope(), 400)},
        "/v1",
        ("cannot see pictures: Model demo takes no images", "vision-language model"),
    ),
    "401": ({MODELS: error("Invalid API key", 401)}, "/v1", ("status 401: Invalid API key", "remote.api_key_env")),
    "403": ({MODELS: Reply(status=403)}, "/v1", ("status 403", "remote.api_key_env")),
    "a web page": ({MODELS: HTML}, "/v1", ("cannot be read", "Is this the base URL of the OpenAI API of vLLM")),
    "no /v1": ({}, "", ("status 404: Not Found", "should most likely end in /v1")),
    "another path": ({MODELS: Reply(b"no", 404)}, "/v1", ("status 404", "as in http://127.0.0.1:8000/v1")),
    "a redirect": ({MODELS: Reply(status=301)}, "/v1", ("status 301", "Redirects are not followed")),
    "not fit": ({"GET /health": Reply({"message": "engine died"}, 503)}, "/v1", ("status 503: engine died",)),
}


@pytest.mark.parametrize("name", MISCONFIGURED)
def test_a_misconfiguration_is_told_with_its_fix(name: str) -> None:
    """The check says what is wrong and what to do, in the status and once as a change."""
    routes, path, parts = MISCONFIGURED[name]

    async def test() -> None:
        async with (
            lookalike({**vllm(), **routes}) as server,
            captioner_at(server.url + path) as (captioner, changes),
        ):
            problem = await captioner.health_check()
            assert await captioner.health_check() == problem
            assert captioner.status().state is ModelState.FAILED
            assert captioner.status().error == problem
            assert changes == [(ModelState.UNLOADED, ModelState.FAILED, problem)]
        for part in parts:
            assert part in str(problem)

    run(test())


@pytest.mark.parametrize(
    ("base_url", "fix"),
    [
        ("http://127.0.0.1:1/v1", "(connection refused). Start vLLM there, or correct `remote.base_url`"),
        ("http://no-such-host.invalid/v1", "name cannot be resolved"),
    ],
)
def test_a_server_that_is_not_there_is_told_with_the_fix(base_url: str, fix: str) -> None:
    """Nobody listens, or the name means nothing; both make a picture's caption fail and no more."""

    async def test() -> None:
        async with captioner_at(base_url, num_retries=0) as (captioner, _):
            assert fix in str(await captioner.health_check())
            assert await captions(captioner, "red") == ["the captioner is not available"]

    run(test())


def test_a_key_that_is_not_set_is_named() -> None:
    """The variable, never its value."""

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert "variable VLM_KEY (`remote.api_key_env`) is not set" in str(await captioner.health_check())

    against({**vllm(), MODELS: error("no", 401)}, use, missing_key="VLM_KEY")


def test_a_name_that_the_listing_does_not_tell_may_still_be_served() -> None:
    """Some servers take aliases: what counts is that the model looks at a picture."""

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert await captioner.health_check() is None

    against(vllm(), use, model="an-alias")


def test_a_busy_server_is_a_well_one() -> None:
    """A check that finds it busy says nothing against it."""

    async def use(captioner: RemoteCaptioner, _: Lookalike, __: list[Change]) -> None:
        assert await captioner.health_check() is None

    against({**vllm(), CHAT: error("full", 429)}, use)


def test_a_check_costs_the_model_nothing_while_all_is_well() -> None:
    """Only the first check has it look at a picture."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        assert [await captioner.health_check() for _ in range(3)] == [None] * 3
        assert server.asked.count(CHAT) == 1
        assert server.asked.count("GET /health") == 3

    against(vllm(), use)


def test_recovery_is_noticed_without_a_restart() -> None:
    """A failure raises the question at once, the watch asks again until all is well, and each change is told."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, changes: list[Change]) -> None:
        watching = asyncio.create_task(captioner.watch())
        await captioner.checked()
        well = dict(server.routes)
        server.routes.update({CHAT: error("dead", 500), "GET /health": Reply({"message": "dead"}, 503)})
        assert await captions(captioner, "red") == ["the captioner failed"]
        while captioner.status().state is not ModelState.FAILED:
            await asyncio.sleep(0.01)
        server.routes.update(well)
        while captioner.status().state is not ModelState.READY:
            await asyncio.sleep(0.01)
        await cancelled(watching)
        assert [new for _, new, _ in changes] == [ModelState.READY, ModelState.FAILED, ModelState.READY]

    against(vllm(), use)


def test_a_check_that_is_asked_for_comes_at_once() -> None:
    """After the machine has slept nobody waits for the minute to pass."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        watching = asyncio.create_task(captioner.watch())
        await captioner.checked()
        server.routes["GET /health"] = Reply({"message": "gone"}, 503)
        captioner.check()
        while captioner.status().state is not ModelState.FAILED:
            await asyncio.sleep(0.01)
        await cancelled(watching)

    against(vllm(), use)


def test_a_caption_shows_that_all_is_well_again() -> None:
    """The answer to a picture counts at once, without a further check."""

    async def use(captioner: RemoteCaptioner, server: Lookalike, _: list[Change]) -> None:
        server.routes["GET /health"] = Reply(status=503)
        assert await captioner.health_check()
        assert await captions(captioner, "red") == ["A red circle."]
        assert captioner.status().error is None

    against(vllm(), use)
