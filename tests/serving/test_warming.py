"""`warm`: system prompts are computed before anybody asks, and never at anybody's expense."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from periscope.core import GenerationParams, Message, Role, TextPart
from periscope.engine import EngineConfig
from periscope.engine.config import StatesOnDisk
from periscope.serving.generation import LocalGenerator
from periscope.serving.warming import warm
from tests.tiny_models import write_text_model

pytestmark = pytest.mark.anyio

PREAMBLE = "You are an agent with rules. " + " ".join(f"Rule {number}." for number in range(40))
GREEDY = GenerationParams(temperature=0.0, max_tokens=4)
ENDLESS = GenerationParams(temperature=0.0, max_tokens=1500, logit_bias=((257, -100.0),))


def chat(text: str) -> list[Message]:
    return [Message(Role.SYSTEM, (TextPart(PREAMBLE),)), Message(Role.USER, (TextPart(text),))]


def texts() -> tuple[str, ...]:
    return (PREAMBLE,)


@pytest.mark.parametrize("model_type", ["qwen3", "lfm2"])
async def test_the_first_conversation_finds_its_beginning(model_type: str, tmp_path: Path) -> None:
    """All of it up to the user's words, whatever they are; also for caches that cannot be trimmed, and from disk."""
    path = write_text_model(tmp_path / model_type, model_type=model_type)
    settings = EngineConfig(states_on_disk=StatesOnDisk(tmp_path / "states", 2**26))
    for _ in range(2):
        async with await LocalGenerator.load(str(path), settings) as generator:
            await warm(generator, "tiny", texts, poll_s=0.001)
            for words in ("Hello!", "- a list", "  spaces"):
                output = await generator.generate(chat(words), GREEDY)
                assert output.stats.num_cached_tokens >= len(PREAMBLE)


async def test_requests_go_first(tiny_text_model: Path) -> None:
    """While one runs nothing is warmed; one that comes in between is answered, and the rest follows."""
    async with await LocalGenerator.load(str(tiny_text_model), EngineConfig(prefill_chunk_size=16)) as generator:
        async with generator.generate_stream([1, 2, 3], ENDLESS) as stream:
            await anext(stream)
            warming = asyncio.create_task(warm(generator, "tiny", texts, poll_s=0.001))
            for _ in range(20):
                await anext(stream)
                assert generator.num_rows == 1
        while generator.num_rows != 1 and not warming.done():
            await asyncio.sleep(0)
        await generator.generate([4, 5, 6], GREEDY)
        await warming
        assert (await generator.generate(chat("Hi"), GREEDY)).stats.num_cached_tokens >= len(PREAMBLE)


async def test_it_ends_with_its_model(tiny_text_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said of it, and nothing is left running."""
    generator = await LocalGenerator.load(str(tiny_text_model), EngineConfig(prefill_chunk_size=16))
    warming = asyncio.create_task(warm(generator, "tiny", texts, poll_s=0.001))
    await asyncio.sleep(0)
    await generator.close()
    await warming
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


async def test_what_cannot_be_warmed_is_a_line(
    tiny_text_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A text that does not fit the context, a file that has gone."""
    async with await LocalGenerator.load(str(tiny_text_model), EngineConfig()) as generator:
        await warm(generator, "tiny", lambda: ("long " * 5000, PREAMBLE), poll_s=0.001)
        assert "warm[0] is not computed" in caplog.text
        await warm(generator, "tiny", lambda: [(tmp_path / "gone").read_text()])
        assert "cannot be read" in caplog.text
        assert (await generator.generate(chat("Hi"), GREEDY)).stats.num_cached_tokens >= len(PREAMBLE)
