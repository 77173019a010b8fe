"""What an engine knows of earlier prompts outlives it: written when it is idle, unloaded, or stopped in the middle."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import GenerationParams
from periscope.engine import EngineConfig, InferenceEngine
from periscope.engine.batch.disk.files import kept_files
from periscope.engine.config import StatesOnDisk
from periscope.errors import EngineClosed
from tests.tiny_models import write_text_model

pytestmark = pytest.mark.anyio

PROMPT = [number * 7 % 250 for number in range(300)]
ENDLESS = GenerationParams(temperature=0.0, max_tokens=1000, logit_bias=((257, -100.0),))
SHORT = GenerationParams(temperature=0.0, max_tokens=4)


def config(folder: Path, write_after_s: float = 1000.0) -> EngineConfig:
    return EngineConfig(prefill_chunk_size=64, states_on_disk=StatesOnDisk(folder, 2**26, write_after_s))


async def num_cached(path: Path, settings: EngineConfig, prompt: list[int]) -> int:
    """Tokens of a prompt that an engine, loaded for it, need not compute."""
    async with await InferenceEngine.load(str(path), settings) as engine:
        return (await engine.generate(prompt, SHORT)).stats.num_cached_tokens


async def test_what_an_engine_has_computed_is_there_when_it_is_loaded_again(
    tiny_text_model: Path, tmp_path: Path
) -> None:
    """Closing it writes, and so does an embedded one."""
    settings = config(tmp_path)
    assert await num_cached(tiny_text_model, settings, PROMPT) == 0
    assert await num_cached(tiny_text_model, settings, [*PROMPT, 1]) == len(PROMPT)


async def test_quantised_states_outlive_it_for_the_same_bits(tmp_path: Path) -> None:
    """They are read again to the same tokens, and never into caches of other bits."""
    path = write_text_model(tmp_path / "wide", head_dim=64)
    settings = replace(config(tmp_path / "states"), kv_bits=8)
    tokens = []
    for cached in (0, len(PROMPT)):
        async with await InferenceEngine.load(str(path), settings) as engine:
            output = await engine.generate([*PROMPT, 1][: len(PROMPT) + bool(cached)], SHORT)
            assert output.stats.num_cached_tokens == cached
            tokens.append((await engine.generate([*PROMPT, 1, 2], SHORT)).tokens)
    assert tokens[0] == tokens[1]
    assert await num_cached(path, replace(settings, kv_bits=4), [*PROMPT, 1]) == 0
    assert await num_cached(path, replace(settings, kv_bits=None), [*PROMPT, 1]) == 0


async def test_an_idle_engine_writes_and_says_how_much(tiny_text_model: Path, tmp_path: Path) -> None:
    """Its memory says what is on disk and what was written; a load finds the first and has none of the second."""
    settings = config(tmp_path, write_after_s=0.0)
    async with await InferenceEngine.load(str(tiny_text_model), settings) as engine:
        await engine.generate(PROMPT, SHORT)
        while not engine.memory.prompt_disk_bytes:
            await asyncio.sleep(0)
        assert engine.memory.prompt_disk_written_bytes == engine.memory.prompt_disk_bytes
        assert engine.memory.prompt_disk_bytes == sum(file.nbytes for file in kept_files(tmp_path))


async def test_a_request_that_runs_when_the_model_goes_is_not_computed_again(
    tiny_text_model: Path, tmp_path: Path
) -> None:
    """It fails, and what was computed for it is written: prompt and answer so far."""
    settings = config(tmp_path)
    engine = await InferenceEngine.load(str(tiny_text_model), settings)
    stream = engine.generate_stream(PROMPT, ENDLESS)
    said: list[int] = []
    while len(said) < 20:
        said += (await anext(stream)).token_ids
    closing = asyncio.create_task(engine.close())
    with pytest.raises(EngineClosed):
        said += [token async for chunk in stream for token in chunk.token_ids]
    await closing
    assert await num_cached(tiny_text_model, settings, [*PROMPT, *said, 1]) >= len(PROMPT) + 20
