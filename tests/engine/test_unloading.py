"""Engines free all of their memory when they are closed, through real MLX."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import numpy as np
import pytest
from mlx import nn

from periscope.core import GenerationParams, Message, Role, TextPart
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig, InferenceEngine, VisionLanguageEngine
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.structured.matcher import Grammar
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import TokenPrompt
from periscope.engine.worker.host import HostedEngine, start_worker
from periscope.engine.worker.thread import MAX_FAILED_HEALTH_CHECKS
from periscope.errors import GenerationFailed, MemoryExceeded, ModelLoadError
from tests.engine import driving
from tests.engine.freed import freed_bytes
from tests.engine.vision.test_vision_language import image_of

TEXT = str(EMBEDDED_MODELS["embedded:text"])
CAPTIONER = str(EMBEDDED_MODELS["embedded:captioner"])
SHORT = GenerationParams(temperature=0.0, max_tokens=4)
PROMPT = "Which of the colours of the rainbow comes first, and which of them comes last?"
NUM_TEXT_CYCLES, NUM_CAPTIONER_CYCLES, NUM_NATIVE_CYCLES = 50, 10, 3


@pytest.fixture(autouse=True)
def back_at_the_start() -> Iterator[None]:
    """Check that memory is within 5 % or 1 MB of its start, and that all threads of the test have ended."""
    threads = set(threading.enumerate())
    gc.collect()
    start = mx.get_active_memory()
    yield
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    assert set(threading.enumerate()) <= threads
    assert mx.get_active_memory() <= start + max(start // 20, 2**20)


def test_a_text_model_loaded_and_closed_often_leaves_nothing() -> None:
    """It is loaded, used and closed fifty times, and all of its weights are freed each time."""

    async def run() -> None:
        for _ in range(NUM_TEXT_CYCLES):
            engine = await InferenceEngine.load(TEXT)
            assert freed_bytes(engine) is None
            assert (await engine.generate(PROMPT, SHORT)).tokens
            await engine.close()
            assert (freed_bytes(engine) or 0) >= engine.memory.weights_bytes > 0

    asyncio.run(run())


def test_a_model_with_vision_leaves_nothing_of_it_and_of_its_images() -> None:
    """It answers about a picture, is closed while another answer runs, and all of its weights are freed each time."""

    async def run() -> None:
        for cycle in range(NUM_NATIVE_CYCLES):
            engine = await InferenceEngine.load(CAPTIONER, EngineConfig(has_vision=True))
            question = [Message(Role.USER, (image_of(cycle), TextPart("Describe the image.")))]
            assert (await engine.generate(question, SHORT)).tokens
            running = engine.generate_stream(question, GenerationParams(max_tokens=500))
            await anext(running)
            await engine.close()
            assert (freed_bytes(engine) or 0) >= engine.memory.weights_bytes > 0

    asyncio.run(run())


def test_a_captioner_loaded_and_closed_often_leaves_nothing() -> None:
    """It is loaded, used and closed ten times, and all of its weights are freed each time."""

    async def run() -> None:
        for cycle in range(NUM_CAPTIONER_CYCLES):
            engine = await VisionLanguageEngine.load(CAPTIONER)
            assert (await engine.describe(image_of(cycle % 6), "Describe.", 4))[1]
            await engine.close()
            assert (freed_bytes(engine) or 0) >= engine.memory.weights_bytes > 0

    asyncio.run(run())


def test_running_requests_do_not_keep_an_unloaded_model(tiny_text_model: Path) -> None:
    """The model is freed with rows in the middle of a completion, even if callers keep their errors."""
    kept: list[BaseException] = []

    async def run() -> None:
        engine = await InferenceEngine.load(str(tiny_text_model), EngineConfig(draft_model=str(tiny_text_model)))
        long = GenerationParams(temperature=1.5, max_tokens=1900, ignore_eos=True)
        running = [asyncio.create_task(engine.generate(f"{number}", long)) for number in range(3)]
        while engine.num_rows < 3:
            await asyncio.sleep(0)
        await engine.close()
        outcomes = await asyncio.gather(*running, return_exceptions=True)
        kept.extend(outcome for outcome in outcomes if isinstance(outcome, BaseException))
        assert freed_bytes(engine) is not None

    asyncio.run(run())
    assert len(kept) == 3


def test_a_leaked_reference_is_logged(tiny_text_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A leak is an error in the log that names the model, and never counts as freed."""
    caplog.set_level(logging.INFO, logger="periscope")
    kept: list[Any] = []

    def load() -> TextModel:
        model = driving.load(tiny_text_model)
        kept.append(model._model)
        return model

    async def unload() -> HostedEngine:
        host = HostedEngine(await start_worker("leaky", load, DeviceTurn()))
        await host.close()
        return host

    assert freed_bytes(asyncio.run(unload())) is None
    assert [record.levelname for record in caplog.records if "leaky" in record.message] == ["ERROR"]
    kept.clear()


def test_an_unload_is_logged_with_its_bytes(tiny_text_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log has one line for each unloaded model, and no error."""
    caplog.set_level(logging.INFO, logger="periscope")

    async def run() -> InferenceEngine:
        async with await InferenceEngine.load(str(tiny_text_model)) as engine:
            return engine

    engine = asyncio.run(run())
    (record,) = [record for record in caplog.records if "unloaded" in record.message]
    assert (record.levelname, f"{freed_bytes(engine)} bytes" in record.message) == ("INFO", True)


def test_the_error_of_a_failed_load_does_not_keep_the_weights(tiny_text_model: Path) -> None:
    """The pool keeps the error of a failed model for long, but not its weights."""
    start = mx.get_active_memory()
    with pytest.raises(ModelLoadError, match="another vocabulary") as kept:
        asyncio.run(InferenceEngine.load(TEXT, EngineConfig(draft_model=str(tiny_text_model))))
    assert mx.get_active_memory() <= start + 1024
    assert kept.value.message


def test_the_error_of_a_refused_request_does_not_keep_the_model(tiny_text_model: Path) -> None:
    """A caller that keeps the error of a request keeps nothing of the model."""
    kept: list[MemoryExceeded] = []

    async def run() -> InferenceEngine:
        engine = await InferenceEngine.load(str(tiny_text_model), EngineConfig(kv_limit_bytes=1))
        with pytest.raises(MemoryExceeded) as caught:
            await engine.generate(PROMPT, SHORT)
        kept.append(caught.value)
        await engine.close()
        return engine

    assert freed_bytes(asyncio.run(run())) is not None
    assert kept


class FailingMatcher:
    """A matcher whose grammar exceeds its limits at the third token."""

    excluded_bits = None

    def __init__(self) -> None:
        self._num_tokens = 0

    def new_matcher(self) -> FailingMatcher:
        return FailingMatcher()

    def consume(self, _token_id: int) -> None:
        self._num_tokens += 1

    def allowed_bits(self, _num_left: int) -> Any:
        if self._num_tokens == 2:
            raise GenerationFailed("The output's grammar failed: too many states.")
        return np.full(9, 2**32 - 1, dtype=np.uint32)


def test_the_error_of_a_grammar_does_not_keep_the_model(tiny_text_model: Path) -> None:
    """It is raised in the middle of a decode step, whose frames refer to the whole batch."""
    kept: list[GenerationFailed] = []

    async def run() -> HostedEngine:
        host = HostedEngine(await start_worker("held", lambda: driving.load(tiny_text_model), DeviceTurn()))
        stream = host.submit(TokenPrompt((1, 2, 3)), SHORT, cast("Grammar", FailingMatcher()))
        with pytest.raises(GenerationFailed, match="too many states") as caught:
            _ = [chunk async for chunk in stream]
        kept.append(caught.value)
        await host.close()
        return host

    assert freed_bytes(asyncio.run(run())) is not None
    assert kept


def test_a_model_whose_every_step_fails_is_freed_too(tiny_text_model: Path) -> None:
    """A worker that ends by itself frees the memory without being closed."""

    def load() -> TextModel:
        whole = driving.load(tiny_text_model)
        network = BreaksDown(whole._model)
        model = TextModel(network, whole.tokenizer, EngineConfig())
        network.is_down = True
        return model

    async def run() -> HostedEngine:
        host = HostedEngine(await start_worker("broken", load, DeviceTurn()))
        for _ in range(MAX_FAILED_HEALTH_CHECKS):
            with pytest.raises(GenerationFailed):
                await anext(host.submit(TokenPrompt((1, 2, 3)), SHORT))
        await host.ended()
        return host

    host = asyncio.run(run())
    assert (freed_bytes(host) or 0) >= host.memory.weights_bytes > 0


class BreaksDown(nn.Module):  # type: ignore[misc]  # mlx tells no types
    """A network that works until the test lets it fail."""

    def __init__(self, inside: Any) -> None:
        super().__init__()
        self.inside = inside
        self.is_down = False

    @property
    def layers(self) -> Any:
        return self.inside.layers

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        logits: mx.array = self.inside(inputs, cache=cache)
        if self.is_down:
            raise RuntimeError("[METAL] Command buffer execution failed")
        return logits


@pytest.mark.parametrize("draft", [False, True], ids=["alone", "with draft"])
def test_the_prompt_cache_is_freed_on_demand(tiny_text_model: Path, draft: bool) -> None:
    """After `release_memory` an idle engine holds only its weights, and still works."""

    async def run() -> None:
        config = EngineConfig(draft_model=str(tiny_text_model) if draft else None)
        async with await InferenceEngine.load(str(tiny_text_model), config) as engine:
            before = mx.get_active_memory()
            first = await engine.generate(PROMPT, SHORT)
            assert engine.memory.prompt_cache_bytes > 0
            assert mx.get_active_memory() > before + 1024
            engine.release_memory()
            while engine.memory.prompt_cache_bytes:
                await asyncio.sleep(0)
            assert mx.get_active_memory() <= before + 1024
            assert (await engine.generate(PROMPT, SHORT)).tokens == first.tokens

    asyncio.run(run())


def test_a_captioner_frees_its_spare_buffers_on_demand() -> None:
    """After `release_memory` no buffers are kept, and the next image still gets its caption."""

    async def run() -> None:
        async with await VisionLanguageEngine.load(CAPTIONER) as engine:
            first = await engine.describe(image_of(0), "Describe.", 8)
            engine.release_memory()
            while mx.get_cache_memory():
                await asyncio.sleep(0)
            assert await engine.describe(image_of(0), "Describe.", 8) == first

    asyncio.run(run())
