"""RawLoop: the baseline, mlx-lm's own batch generator in the shortest loop that its users write. `MLXThread` only."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from mlx_lm import load
from mlx_lm.generate import BatchGenerator

from periscope.bench.contenders import Ask
from periscope.bench.host_time import HostLog, own_clock
from periscope.bench.mlx_memory import PeakMemory
from periscope.bench.mlx_thread import MLXThread
from periscope.bench.samples import BASELINE, Batch, Row
from periscope.bench.waiting import TIME_LIMIT_S, gave_up
from periscope.engine.config import EngineConfig
from periscope.engine.loading.loader import LIBRARY_LOCK, prepare_libraries


class RawLoop:
    """Owns a second copy of the model, on its thread. Prompts are tokenised outside the measured time."""

    name = BASELINE

    def __init__(
        self,
        thread: MLXThread,
        model: tuple[Any, Any],
        config: EngineConfig,
        tokenise: Callable[[str], Awaitable[Sequence[int]]],
        *,
        limit_s: float = TIME_LIMIT_S,
    ) -> None:
        self._thread = thread
        self._model, self._tokenizer = model
        self._config = config
        self._tokenise = tokenise
        self._limit_s = limit_s

    @classmethod
    async def load(
        cls,
        thread: MLXThread,
        path: Path,
        config: EngineConfig,
        tokenise: Callable[[str], Awaitable[Sequence[int]]],
        *,
        limit_s: float = TIME_LIMIT_S,
    ) -> Self:
        """Load the model on the thread that will generate.

        Args:
            tokenise: renders a user message as a chat and tokenises it, exactly as the engine does.
            limit_s: how long a batch may take.
        """
        return cls(thread, await thread.run(partial(load_model, path)), config, tokenise, limit_s=limit_s)

    async def run(self, asks: Sequence[Ask]) -> Batch:
        token_ids = [list(await self._tokenise(ask.prompt)) for ask in asks]
        return await self._thread.run(lambda: self._generate(asks, token_ids))

    def _generate(self, asks: Sequence[Ask], prompts: list[list[int]]) -> Batch:
        generator = batch_generator(self._model, self._tokenizer, self._config)
        waiting = deque(sorted(range(len(asks)), key=lambda row: asks[row].after_s))
        row_of: dict[int, int] = {}
        times: list[list[float]] = [[] for _ in asks]
        num_left = len(asks)
        host, memory = HostLog(own_clock()), PeakMemory()
        started, cpu_started = time.perf_counter(), time.process_time()
        while num_left:
            now = time.perf_counter() - started
            if now > self._limit_s:
                generator.close()
                raise gave_up(self._limit_s, f"the raw loop with {len(asks)} at once")
            arrived: list[int] = []
            while waiting and asks[waiting[0]].after_s <= now:
                arrived.append(waiting.popleft())
            if arrived:
                uids = generator.insert([prompts[row] for row in arrived], [asks[row].max_tokens for row in arrived])
                row_of.update(zip(uids, arrived, strict=True))
            elif num_left == len(waiting):  # nothing runs: wait for the next request
                time.sleep(max(0.0, asks[waiting[0]].after_s - now))
                continue
            _, responses = generator.next()
            now = time.perf_counter() - started
            for response in responses:
                times[row_of[response.uid]].append(now)
                num_left -= response.finish_reason is not None
            host.note(now)
        cpu_s = time.process_time() - cpu_started
        peak_bytes = memory.bytes
        generator.close()
        rows = tuple(Row(len(row), tuple(row), ask.after_s) for row, ask in zip(times, asks, strict=True))
        return Batch(rows, cpu_s, host.stamps, peak_bytes)


def load_model(path: Path) -> tuple[Any, Any]:
    """The model and its tokenizer, for the thread that calls."""
    prepare_libraries()
    with LIBRARY_LOCK:
        model, tokenizer = load(str(path))[:2]
    return model, tokenizer


def batch_generator(model: Any, tokenizer: Any, config: EngineConfig) -> BatchGenerator:
    """mlx-lm's, with the sizes that the engine works with."""
    return BatchGenerator(
        model,
        stop_tokens=[[token] for token in tokenizer.eos_token_ids],
        completion_batch_size=config.max_num_seqs,
        prefill_step_size=config.prefill_chunk_size,
    )
