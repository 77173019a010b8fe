"""EngineContender: the engine used as a library, in this process. Event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.bench.contenders import Ask, user_message
from periscope.bench.host_time import HostLog, own_clock
from periscope.bench.mlx_memory import PeakMemory
from periscope.bench.samples import Batch, Row
from periscope.bench.waiting import TIME_LIMIT_S, within
from periscope.core import GenerationParams

if TYPE_CHECKING:
    from periscope.engine import InferenceEngine


class EngineContender:
    """Runs `InferenceEngine.generate_stream`, from messages to text. Does not own the engine.

    Args:
        limit_s: how long a batch may take.
    """

    def __init__(self, engine: InferenceEngine, name: str = "engine", *, limit_s: float = TIME_LIMIT_S) -> None:
        self.name = name
        self._engine = engine
        self._limit_s = limit_s

    async def run(self, asks: Sequence[Ask]) -> Batch:
        host, memory = HostLog(own_clock()), PeakMemory()
        started, cpu_started = time.perf_counter(), time.process_time()

        async def answer(ask: Ask) -> Row:
            await asyncio.sleep(ask.after_s)
            params = GenerationParams(temperature=0.0, max_tokens=ask.max_tokens)
            sent_s = time.perf_counter() - started
            times_s: list[float] = []
            num_tokens = 0
            async with self._engine.generate_stream([user_message(ask.prompt)], params) as stream:
                async for chunk in stream:
                    num_tokens += chunk.num_tokens
                    times_s.append(time.perf_counter() - started)
                    host.note(times_s[-1])
            return Row(num_tokens, tuple(times_s), sent_s)

        async with within(self._limit_s, f"the engine with {len(asks)} at once"):
            rows = await asyncio.gather(*(answer(ask) for ask in asks))
        return Batch(tuple(rows), time.process_time() - cpu_started, host.stamps, memory.bytes)
