"""TextBatch keeps within its memory: what is refused, what waits for room, and which kept states are evicted."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import pytest

from periscope.core import GenerationParams
from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.device.memory import DeviceMemory
from periscope.engine.loading.footprint import measure
from periscope.engine.text_model import TextModel
from periscope.errors import MemoryExceeded
from tests.engine.batch.batches import RANDOM, Unreliable, batch_over, prompt
from tests.engine.device.test_memory import FixedMemory
from tests.engine.driving import Run, all_of, load, submit


class Unkeeping(PromptCache):
    """A cache that cannot keep any state."""

    def keep(self, tokens: Sequence[int], caches: LayerCaches) -> None:  # noqa: ARG002
        raise RuntimeError("[metal::malloc] out of memory")


def test_a_state_that_cannot_be_kept_affects_no_row(model: TextModel) -> None:
    """Rows end and are removed without their states being kept, and the tokens of others do not change."""
    tokens = random.Random(7).choices(range(250), k=300)
    short = GenerationParams(temperature=0.0, max_tokens=4)
    submits = [submit(tokens[:30]), submit(tokens[30:70], short)]
    expected = all_of(batch_over(model), *submits)
    batch = batch_over(model, prompt_cache=Unkeeping(2**20), cache_bytes=2**20)
    run = Run(batch)
    rows = run.admit(*submits)
    reading, decoding = run.admit(submit(tokens[90:]), submit(tokens[70:90]))
    run.step()
    run.remove(reading)
    while not run.tokens[decoding]:
        run.step()
    run.remove(decoding)
    run.to_the_end()
    assert [run.tokens[row] for row in rows] == expected
    while batch.has_work:
        batch.step()
    assert batch._executor.rows_bytes == 0


def test_a_prompt_that_can_never_fit_is_refused_before_any_work(model: TextModel) -> None:
    """The error has both numbers, the model is not called, and neither max_tokens nor other models' memory matters."""
    unreliable = Unreliable(model._model)
    footprint = model._budget.footprint
    batch = batch_over(model, unreliable, limit_bytes=footprint.nbytes(256))
    with pytest.raises(MemoryExceeded, match="1000 tokens"):
        batch.admit(submit(prompt(1000)))
    assert unreliable.num_calls == 0
    batch.admit(submit(prompt(200), GenerationParams(max_tokens=1_000_000)))
    unchecked = batch_over(model, limit_bytes=footprint.nbytes(256), checks_memory=False)
    assert all_of(unchecked, submit(prompt(1000)))


def test_a_prompt_that_does_not_fit_now_waits_for_room(model: TextModel) -> None:
    """With memory for two rows, the third starts when one has ended, and none is refused."""
    batch = batch_over(model, limit_bytes=2 * model._budget.footprint.nbytes(256))
    run = Run(batch)
    run.admit(*(submit(prompt(100)) for _ in range(4)))
    while run.live:
        run.step()
        assert len(batch._executor.decoding) + sum(p.caches is not None for p in batch._executor.prompts) <= 2
    assert all(len(tokens) == 16 for tokens in run.tokens.values())


def test_a_large_request_that_waits_for_room_is_not_overtaken_for_ever(model: TextModel) -> None:
    """Small requests that keep coming start after it, once it does not fit beside the running rows."""
    batch = batch_over(model, limit_bytes=2 * model._budget.footprint.nbytes(512))
    run = Run(batch)
    run.admit(submit(prompt(100)), submit(prompt(100)))
    for _ in range(4):
        run.step()
    (large,) = run.admit(submit(prompt(600)))
    latecomers = run.admit(*(submit(prompt(100)) for _ in range(4)))
    while not run.tokens[large]:
        run.step()
        assert not any(run.tokens[row] for row in latecomers)
    run.to_the_end()
    assert all(len(run.tokens[row]) == 16 for row in latecomers)


def test_kept_states_give_way_to_live_rows(model: TextModel) -> None:
    """The prompt cache never prevents a request from running."""
    room = 2 * model._budget.footprint.nbytes(256)
    batch = batch_over(model, limit_bytes=room, cache_bytes=room)
    for _ in range(4):
        all_of(batch, submit(prompt(200)))
    assert batch.prompt_cache_bytes == room
    run = Run(batch)
    run.admit(submit(prompt(200)), submit(prompt(200)))
    while len(batch._executor.decoding) < 2:
        run.step()
    assert batch.prompt_cache_bytes == 0
    run.to_the_end()


def _kept(batch: TextBatch, prompts: Sequence[Sequence[int]]) -> None:
    for tokens in prompts:
        all_of(batch, submit(tokens, GenerationParams(temperature=0.0, max_tokens=2)))


def test_hundreds_of_different_prompts_leave_memory_where_it_was(model: TextModel) -> None:
    """Kept bytes never exceed their bound, and when they are dropped, memory is back at its start."""
    limit = 2**20
    batch = batch_over(model, cache_bytes=limit)
    _kept(batch, [prompt(50)])
    batch.clear_prompt_cache()
    mx.clear_cache()
    start = mx.get_active_memory()
    for _ in range(150):
        all_of(batch, submit(prompt(RANDOM.randrange(20, 100)), GenerationParams(temperature=0.0, max_tokens=2)))
        assert batch.prompt_cache_bytes <= limit
        assert mx.get_active_memory() <= start + limit + 2**20
    batch.clear_prompt_cache()
    mx.clear_cache()
    assert mx.get_active_memory() <= start * 1.05


@pytest.mark.parametrize("cache_bytes", [None, 2**40], ids=["a quarter", "as much as there is"])
def test_two_models_together_keep_within_one_budget(tiny_text_model: Path, cache_bytes: int | None) -> None:
    """Whatever each may keep by itself, after every request weights, rows and kept states are within the budget."""
    weights_bytes = measure(str(tiny_text_model), EngineConfig()).weights_bytes
    block_bytes = 2 * 2 * 2 * 16 * 4 * 256
    budget_bytes = mx.get_active_memory() + 2 * weights_bytes + 12 * block_bytes
    config, memory = EngineConfig(prompt_cache_bytes=cache_bytes), DeviceMemory(budget_bytes)
    batches = [load(tiny_text_model, config, memory).new_batch() for _ in range(2)]
    for _ in range(16):
        for each in batches:
            all_of(each, submit(prompt(200)), submit(prompt(150)))
            assert mx.get_active_memory() <= budget_bytes
    assert all(each.prompt_cache_bytes >= block_bytes for each in batches)


def test_kept_states_shrink_when_others_need_the_room(model: TextModel) -> None:
    """The next state that is kept is bounded by the memory there is now, not when its row started."""
    block_bytes = model._budget.footprint.nbytes(256)
    memory = FixedMemory(budget=12 * block_bytes, active=0)
    batch = batch_over(model, cache_bytes=8 * block_bytes, memory=memory)
    for _ in range(10):
        all_of(batch, submit(prompt(200)))
    assert batch.prompt_cache_bytes == 8 * block_bytes
    run = Run(batch)
    run.admit(submit(prompt(200)))
    while not len(batch._executor.decoding):
        run.step()
    memory.active = 18 * block_bytes  # of which this model's rows and states are nine
    run.to_the_end()
    assert batch.prompt_cache_bytes == 3 * block_bytes
