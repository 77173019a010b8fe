"""A model and a batch that do what a script says, and a worker that runs them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field

from periscope.core import FinishReason, GenerationParams
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.worker.commands import Submit, TokenPrompt
from periscope.engine.worker.contracts import KeepsNothing, Sampled
from periscope.engine.worker.host import HostedEngine, start_worker
from periscope.engine.worker.stream import TokenStream

PARAMS = GenerationParams(max_tokens=100)
BAD_PROMPT = TokenPrompt((13,))
GOOD_PROMPT = TokenPrompt((1,))


class Letters:
    """Detokenizer: token n is the n-th letter."""

    def feed(self, token_id: int) -> str:
        if token_id < 0:
            raise ValueError("no such token")
        return chr(ord("a") + token_id)

    def finish(self) -> str:
        return ""


@dataclass
class Script:
    """Owns what the scripted batch does: `steps` are taken from the front; the last one repeats."""

    steps: list[Callable[[list[int]], Iterable[Sampled]]]
    admitted: list[int] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)
    num_batches: int = 0
    num_cleared: int = 0
    is_broken: bool = False
    num_owed_steps: int = 0
    miscounts: bool = False
    is_kept_open: bool = False


class ScriptedBatch(KeepsNothing):
    def __init__(self, script: Script) -> None:
        self._script = script
        self._rows: list[int] = []

    def admit(self, submit: Submit) -> int:
        if submit.prompt == BAD_PROMPT:
            raise ZeroDivisionError("bad prompt")
        row = len(self._script.admitted)
        self._script.admitted.append(row)
        self._rows.append(row)
        return row

    def step(self) -> Iterable[Sampled]:
        steps = self._script.steps
        step = steps.pop(0) if len(steps) > 1 else steps[0]
        return step(self._rows)

    def prepare(self) -> None:
        return

    prompt_cache_bytes = working_bytes = 0

    @property
    def num_preemptions(self) -> int:
        if self._script.miscounts:
            raise ZeroDivisionError("a fault of the batch")
        return 0

    @property
    def has_work(self) -> bool:
        return self._script.num_owed_steps > 0

    def clear_prompt_cache(self) -> None:
        self._script.num_cleared += 1

    def end_thinking(self, row_id: int) -> None:
        del row_id

    def remove(self, rows: Sequence[int]) -> None:
        self._script.removed.extend(rows)
        self._rows = [row for row in self._rows if row not in rows]

    def close(self) -> None:
        self._rows = []
        if self._script.is_kept_open:
            raise RuntimeError("no device")


class ScriptedModel:
    def __init__(self, script: Script) -> None:
        self._script = script

    facts = None
    networks = ()

    def new_batch(self) -> ScriptedBatch:
        self._script.num_batches += 1
        return ScriptedBatch(self._script)

    def new_detokenizer(self, after: Sequence[int] = ()) -> Letters:  # noqa: ARG002 - the contract's
        return Letters()

    def check_health(self) -> None:
        if self._script.is_broken:
            raise MemoryError("no device")


def say(token: int, reason: FinishReason | None = None) -> Callable[[list[int]], list[Sampled]]:
    return lambda rows: [Sampled(row, token, finish_reason=reason) for row in rows]


def explode(_rows: list[int]) -> list[Sampled]:
    raise MemoryError("out of device memory")


def with_worker(
    script: Script,
    use: Callable[[HostedEngine], Awaitable[None]],
    turn: DeviceTurn | None = None,
    *,
    report_interval_s: float = 0.0,
) -> None:
    async def run() -> None:
        worker = await start_worker(
            "scripted", lambda: ScriptedModel(script), turn or DeviceTurn(), report_interval_s=report_interval_s
        )
        host = HostedEngine(worker)
        try:
            await use(host)
        finally:
            await host.close()

    asyncio.run(run())


async def text_of(stream: TokenStream) -> str:
    return "".join([chunk.text async for chunk in stream])
