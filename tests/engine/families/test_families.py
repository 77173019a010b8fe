"""Every architecture that people run, as its repository stores it and in 4 bits: the promises of the engine hold.

Tokens are compared exactly. Weights are random, so that no two logits are within rounding of each other, and everything
but the 4-bit matrices is float32: there batches and chunks change the order of sums, never a token. In half precision
logits do tie, and a batch may then decide differently; no server can promise more.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import math
import random
from collections.abc import Callable

import mlx.core as mx
import pytest
from mlx import nn
from mlx.utils import tree_flatten

from periscope.core import GenerationParams
from periscope.engine import InferenceEngine
from periscope.engine.config import EngineConfig
from periscope.engine.device.memory import BLOCK_TOKENS
from periscope.engine.loading.footprint import measure
from periscope.engine.loading.fused_projections import ROW_AXES, Projection
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit
from tests.engine.driving import Run, all_of, alone, submit
from tests.engine.families.checkpoints import stored_weights, write_quantised
from tests.engine.families.conftest import SETTINGS, Checkpoint
from tests.engine.families.shapes import CONTEXT_LENGTH, FAMILIES
from tests.engine.freed import freed_bytes, settled_bytes

#: Of prompts: shorter than a chunk, around the windows of 64 and the chunks of 96 that some families have, and longer.
LENGTHS = (1, 2, 3, 4, 5, 7, 9, 12, 17, 20, 21, 33, 64, 65, 97, 140)
#: Longer than every window, and ended in none of the caches' blocks.
LONG = 300
#: Ropes and the like, which are no parameters.
PRIVATE_BYTES = 64 * 1024
#: What caches do depends on the family, not on how its weights are stored: once is enough, as most people have them.
in_4_bits = pytest.mark.parametrize("checkpoint", [f"{name}-4bit" for name in FAMILIES], indirect=True)


def prompt(length: int) -> list[int]:
    return [random.Random(length).randrange(250) for _ in range(length)]


def greedy(num_tokens: int) -> GenerationParams:
    return GenerationParams(temperature=0.0, max_tokens=num_tokens)


def sixteen() -> list[Submit]:
    return [submit(prompt(length), greedy(2 + length % 3)) for length in LENGTHS]


def weights_by_name(network: nn.Module) -> dict[str, mx.array]:
    """By the names that mlx-lm gives them, also those of projections that are computed together."""
    weights = dict(tree_flatten(network.parameters()))
    for path, module in network.named_modules():
        for name, projection in vars(module).items():
            if isinstance(projection, Projection):
                fused = projection.fused
                for kind, array in fused.joint.parameters().items():
                    parts = mx.split(array, fused.ends, axis=ROW_AXES[kind])
                    weights[f"{path}.{name}.{kind}"] = parts[projection.index]
    return {name: array for name, array in weights.items() if "_and_" not in name}


def test_it_is_loaded_and_takes_what_its_files_told(checkpoint: Checkpoint) -> None:
    """Weights and the room for a conversation to the byte; what was taken is given back."""
    told = measure(str(checkpoint.path), EngineConfig())
    second_head = checkpoint.family.dropped.get("lm_head.weight", (0,)) if checkpoint.precision == "float32" else (0,)
    second_head_bytes = 4 * math.prod(second_head)  # counted because other families have use for it
    gc.collect()  # what earlier tests left must not go while this one counts

    async def run() -> None:
        before = mx.get_active_memory()
        async with await InferenceEngine.load(str(checkpoint.path), SETTINGS) as engine:
            taken = settled_bytes(before, engine.memory.weights_bytes + PRIVATE_BYTES)
            assert engine.memory.weights_bytes + second_head_bytes == told.weights_bytes
            assert engine.memory.weights_bytes <= taken < engine.memory.weights_bytes + PRIVATE_BYTES
            assert engine.model_info.context_length == CONTEXT_LENGTH
            assert engine.model_info.is_batched == checkpoint.family.is_batched
            output = await engine.generate(prompt(20), greedy(4))
            assert 1 <= len(output.tokens) <= 4
        assert freed_bytes(engine) is not None
        assert settled_bytes(before, PRIVATE_BYTES) < PRIVATE_BYTES

    asyncio.run(run())


def test_what_was_stored_is_what_is_computed_with(checkpoint: Checkpoint, model: TextModel) -> None:
    """By the original's names and in its layout; other parts of it are left out, and nothing else is."""
    stored = stored_weights(checkpoint.path)
    loaded = weights_by_name(model.networks[0])
    if checkpoint.precision == "float32":
        loaded = checkpoint.family.layout(loaded)
        assert set(stored) - set(loaded) == set(checkpoint.family.dropped)
    assert all(mx.allclose(array, stored[name], atol=1e-6) for name, array in loaded.items())


def test_alone_at_once_and_from_a_warm_cache_the_tokens_are_the_same(model: TextModel) -> None:
    """Sixteen requests, some shorter and some longer than whatever window the family has."""
    submits = sixteen()
    expected = alone(model, submits)
    batch = model.new_batch()
    assert all_of(batch, *submits) == expected
    warm = Run(batch)
    rows = warm.admit(*submits)
    warm.to_the_end()
    assert [warm.tokens[row] for row in rows] == expected
    if not model.wants_checkpoints:  # else a whole prompt's state cannot be cut back to its last token but one
        assert all(warm.last[row].num_cached_tokens for row, each in zip(rows, LENGTHS, strict=True) if each > 20)


@in_4_bits
def test_a_conversation_goes_on_from_its_kept_state(model: TextModel) -> None:
    """What was computed of a turn is the beginning of the next, whatever caches hold it, and gives the same tokens."""
    batch, history = model.new_batch(), prompt(100)
    batch.clear_prompt_cache()
    for turn in range(2):
        run = Run(batch)
        (row,) = run.admit(submit(history, greedy(6)))
        run.to_the_end()
        assert (run.last[row].num_cached_tokens >= 100) == (turn > 0)
        history += [*run.tokens[row], *prompt(30)]
    (cold,) = alone(model, [submit(history, greedy(6))])
    (warm,) = all_of(batch, submit(history, greedy(6)))
    assert warm == cold


def ticking() -> Callable[[], float]:
    """A clock by which everything takes a second, so that a step reads no more than a part of a long prompt."""
    return map(float, itertools.count()).__next__


@in_4_bits
def test_cancelled_in_prefill_it_leaves_nothing_behind(model: TextModel) -> None:
    """Its neighbour's tokens and its successor's are right, and the memory is back."""
    neighbour, long = submit(prompt(33), greedy(24)), submit(prompt(LONG), greedy(5))
    expected = alone(model, [neighbour, long])
    batch = model.new_batch(ticking())
    gc.collect()
    before = mx.get_active_memory()
    run = Run(batch)
    (staying,) = run.admit(neighbour)
    while not run.tokens[staying]:
        run.step()
    (leaving,) = run.admit(long)
    while not batch._executor.prompts[0].num_computed:
        run.step()
    assert 0 < batch._executor.prompts[0].num_computed < LONG - 50
    run.remove(leaving)
    run.to_the_end()
    assert [run.tokens[staying], *all_of(batch, long)] == expected
    assert batch._executor.rows_bytes == 0
    batch.clear_prompt_cache()
    assert mx.get_active_memory() <= before


@in_4_bits
def test_its_caches_take_what_was_reckoned(checkpoint: Checkpoint, model: TextModel) -> None:
    """To the byte while it is alone, but for Llama 4's chunks; in company no more than a block a row beyond it."""
    footprint, batch = model._budget.footprint, model.new_batch()
    batch.clear_prompt_cache()
    run = Run(batch)
    (row,) = run.admit(submit(prompt(LONG), greedy(8)))
    while not run.tokens[row]:
        assert batch._executor.rows_bytes <= footprint.nbytes(LONG)
        run.step()
    if checkpoint.family.config["model_type"] != "llama4":
        assert batch._executor.rows_bytes == footprint.nbytes(LONG)
    run.admit(*(submit(prompt(length), greedy(4)) for length in (1, 140)))
    while run.live:
        run.step()
        assert batch._executor.rows_bytes <= 3 * footprint.nbytes(LONG + BLOCK_TOKENS)


def test_the_room_set_aside_is_that_of_a_conversation(checkpoint: Checkpoint, model: TextModel) -> None:
    """Windows, shared and compressed states, and layers without keys are told by config.json alone."""
    told = measure(str(checkpoint.path), EngineConfig())
    assert told.reserve_bytes == model._budget.footprint.nbytes(CONTEXT_LENGTH)


@pytest.mark.parametrize("name", FAMILIES)
def test_in_half_precision_it_takes_what_its_files_told(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """4-bit matrices with bfloat16 scales, as most repositories for Macs are; caches are half precision, too."""
    path = write_quantised(tmp_path_factory.mktemp("half") / name, FAMILIES[name], dtype=mx.bfloat16)
    told = measure(str(path), SETTINGS)

    async def run() -> None:
        async with await InferenceEngine.load(str(path), SETTINGS) as engine:
            assert engine.memory.weights_bytes == told.weights_bytes
            assert len({(await engine.generate(prompt(50), greedy(6))).tokens for _ in range(2)}) == 1

    asyncio.run(run())
