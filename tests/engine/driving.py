"""Drives a text model's batch step by step on the test's own thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from periscope.core import GenerationParams
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.device.memory import DeviceMemory
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit, TokenPrompt
from periscope.engine.worker.contracts import Sampled
from periscope.engine.worker.stream import TokenStream

GREEDY = GenerationParams(temperature=0.0, max_tokens=16)
NOBODY = cast("TokenStream", None)  # a batch never looks at the stream


def load(path: Path, config: EngineConfig = EngineConfig(), memory: DeviceMemory | None = None) -> TextModel:
    return TextModel.load(path, config, DeviceTurn(), lambda _done, _total: None, memory)


def submit(tokens: Sequence[int], params: GenerationParams = GREEDY, checkpoints: Sequence[int] = ()) -> Submit:
    return Submit(TokenPrompt(tuple(tokens), tuple(checkpoints)), params, NOBODY)


class Run:
    """Owns the output of a batch: the tokens of each row, and its last result."""

    def __init__(self, batch: TextBatch) -> None:
        self.batch = batch
        self.tokens: dict[int, list[int]] = {}
        self.last: dict[int, Sampled] = {}
        self.live: set[int] = set()
        self.num_steps = 0

    def admit(self, *submits: Submit) -> list[int]:
        rows = [self.batch.admit(each) for each in submits]
        self.tokens |= {row: [] for row in rows}
        self.live |= set(rows)
        return rows

    def step(self) -> None:
        self.num_steps += 1
        for sampled in self.batch.step():
            self.last[sampled.row] = sampled
            if sampled.error is None:
                self.tokens[sampled.row].append(sampled.token_id)
            if sampled.error is not None or sampled.finish_reason is not None:
                self.live.discard(sampled.row)

    def to_the_end(self) -> None:
        while self.live:
            self.step()

    def remove(self, row: int) -> None:
        self.batch.remove([row])
        self.live.discard(row)


def all_of(batch: TextBatch, *submits: Submit) -> list[list[int]]:
    """The tokens of requests that run together."""
    run = Run(batch)
    rows = run.admit(*submits)
    run.to_the_end()
    return [run.tokens[row] for row in rows]


def alone(model: TextModel, submits: Sequence[Submit]) -> list[list[int]]:
    """Each by itself, with nothing kept of the others."""
    batch, tokens = model.new_batch(), []
    for each in submits:
        batch.clear_prompt_cache()
        tokens += all_of(batch, each)
    batch.clear_prompt_cache()
    return tokens
