"""Broken pictures and documents are taken, or are a client's error. `periscope bench fuzz` sends more to a server."""

from __future__ import annotations

from collections import Counter

from periscope.api.content_parts import decode_content
from periscope.bench.fuzz import fuzz_file
from periscope.bench.fuzz_files import SEED_FILES
from periscope.captions.cache import CaptionCache
from periscope.core import JSONObject, Message, Role
from periscope.errors import RequestError
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings
from tests.vision.fakes import FakeCaptioner, run

NUM_FILES = 30 * len(SEED_FILES)


def asked(part: JSONObject) -> list[Message]:
    return [Message(Role.USER, decode_content([part], "messages[0].content"))]


async def refused_param(proxy: VisionProxy, part: JSONObject) -> str | None:
    """The part that the error names; "" if the file is taken."""
    try:
        await proxy.rewrite(asked(part), FakeCaptioner(), ProxySettings())
    except RequestError as error:
        return error.param
    return ""


def test_every_good_file_is_taken() -> None:
    """The files that are broken by the other test are good before that."""

    async def test() -> None:
        proxy = VisionProxy(CaptionCache())
        for seed in SEED_FILES:
            rewritten = await proxy.rewrite(asked(seed.part(seed.data())), FakeCaptioner(), ProxySettings())
            assert rewritten.vision.num_failed == 0, seed.name
            assert rewritten.messages[0].text.startswith("["), seed.name

    run(test())


def test_a_broken_file_is_taken_or_refused() -> None:
    """Nothing else is raised, whichever bytes are wrong; a refusal names the part."""

    async def test() -> None:
        proxy, outcomes = VisionProxy(CaptionCache()), Counter[str | None]()
        for number in range(NUM_FILES):
            seed, data = fuzz_file(7, number)
            outcomes[await refused_param(proxy, seed.part(data))] += 1
        assert set(outcomes) == {"", "messages[0].content[0]"}
        assert min(outcomes.values()) > NUM_FILES // 5

    run(test())
