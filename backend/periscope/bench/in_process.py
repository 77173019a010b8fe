"""EngineContender: the engine used as a library, in this process. Event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.bench.contenders import user_message
from periscope.bench.samples import Batch, Row
from periscope.core import GenerationParams

if TYPE_CHECKING:
    from periscope.engine import InferenceEngine


class EngineContender:
    """Runs `InferenceEngine.generate_stream`, from messages to text. Does not own the engine."""

    name = "engine"

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine = engine

    async def run(self, prompts: Sequence[str], max_tokens: int) -> Batch:
        params = GenerationParams(temperature=0.0, max_tokens=max_tokens)
        started, cpu_started = time.perf_counter(), time.process_time()

        async def answer(prompt: str) -> Row:
            times_s: list[float] = []
            num_tokens = 0
            async with self._engine.generate_stream([user_message(prompt)], params) as stream:
                async for chunk in stream:
                    num_tokens += chunk.num_tokens
                    times_s.append(time.perf_counter() - started)
            return Row(num_tokens, tuple(times_s))

        rows = await asyncio.gather(*(answer(prompt) for prompt in prompts))
        return Batch(tuple(rows), time.process_time() - cpu_started)
