"""Prompts prefilled a few layers at a time, on real (tiny) models with several kinds of caches."""

from __future__ import annotations

import random
from collections.abc import Callable

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from periscope.core import GenerationParams
from periscope.engine import EngineConfig
from periscope.engine.batch.prefill import BURST_ROW_TOKENS
from periscope.engine.batch.prompt import Prompt, start_chunk
from periscope.engine.batch.rows import Row
from periscope.engine.batch.sampling import GREEDY
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.text_model import TextModel
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import SHAPES, write_text_model

RANDOM = random.Random(11)
NUM_LAYERS = 6
NUM_SLICES = NUM_LAYERS - 1
CONFIG = EngineConfig(prompt_cache_bytes=16 * 2**20, prefill_chunk_size=64)
ENDLESS = GenerationParams(temperature=0.0, max_tokens=600, logit_bias=((257, -100.0),))
SHORT = GenerationParams(temperature=0.0, max_tokens=8, logit_bias=((257, -100.0),))


def tokens_of(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


@pytest.fixture(scope="module", params=sorted(SHAPES))
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    kind = str(request.param)
    folder = tmp_path_factory.mktemp(kind) / "deep"
    return load(write_text_model(folder, model_type=kind, num_layers=NUM_LAYERS), CONFIG)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    return load(write_text_model(tmp_path_factory.mktemp("plain") / "deep", num_layers=NUM_LAYERS), CONFIG)


def ticking() -> Callable[[], float]:
    """A clock by which every measured duration is a second."""
    ticks = iter(range(10**6))
    return lambda: float(next(ticks))


def prompt_of(model: TextModel, tokens: list[int]) -> Prompt:
    row = Row(1, mx.array(tokens), list(tokens), SHORT, GREEDY)  # type: ignore[arg-type]
    return Prompt(row, (), caches=make_prompt_cache(model._model))


def compute(model: TextModel, prompt: Prompt, num_tokens: int, *, at_once: int) -> None:
    chunk = start_chunk(model._model, prompt, num_tokens)
    while not chunk.compute(at_once, ticking()):
        pass
    prompt.end_chunk()


def test_layer_by_layer_the_caches_become_what_they_become_at_once(model: TextModel) -> None:
    """Prefill in layer slices gives the same logits, bit by bit, as one forward pass, for every kind of cache."""
    tokens = tokens_of(150)
    pieces, whole = prompt_of(model, tokens), prompt_of(model, tokens)
    for num in (100, 49):
        compute(model, pieces, num, at_once=1)
        compute(model, whole, num, at_once=NUM_SLICES)
    assert pieces.is_complete
    assert whole.is_complete
    last = mx.array([tokens[-1:]])
    assert mx.array_equal(model._model(last, cache=pieces.caches), model._model(last, cache=whole.caches))


def test_a_chunk_counts_when_all_of_its_layers_are_there(plain: TextModel) -> None:
    """A chunk counts as computed after its last slice; then its cost per token is known."""
    prompt = prompt_of(plain, tokens_of(41))
    chunk = start_chunk(plain._model, prompt, 40)
    clock = ticking()
    assert [chunk.compute(1, clock) for _ in range(NUM_SLICES)] == [False, False, False, False, True]
    assert prompt.num_computed == 0
    prompt.end_chunk()
    assert prompt.num_computed == 40
    assert prompt.token_s == NUM_SLICES / 40


def running_beside(batch: TextBatch) -> tuple[Run, int]:
    """A batch in which one row decodes endlessly, and has not just begun."""
    run = Run(batch)
    (running,) = run.admit(submit(tokens_of(12), ENDLESS))
    while len(run.tokens[running]) <= BURST_ROW_TOKENS:
        run.step()
    return run, running


def test_beside_a_stream_prompts_get_the_same_tokens(model: TextModel) -> None:
    """Long and short prompts that are prefilled in turns, a few layers each, get the tokens they get alone."""
    submits = [submit(tokens_of(length), SHORT) for length in (300, 40, 7, 120)]
    expected = []
    for each in submits:
        expected += all_of(fresh(model), each)
    run, _ = running_beside(fresh(model))
    rows = run.admit(*submits[:2])
    for _ in range(3):
        run.step()
    rows += run.admit(*submits[2:])
    while run.live & set(rows):
        run.step()
    assert [run.tokens[row] for row in rows] == expected


def fresh(model: TextModel) -> TextBatch:
    """A new batch with a clock by which all steps and slices take equally long."""
    batch = model.new_batch(ticking())
    batch.clear_prompt_cache()
    return batch


def test_a_prompt_removed_between_two_slices_leaves_its_state_with_the_chunk(plain: TextModel) -> None:
    """The chunk under way is computed to its end, then the state is kept and the prompt dropped."""
    long = tokens_of(1000)
    seen = set()
    for num_steps in (1, 2, 3, 5, 9):
        batch = fresh(plain)
        run, running = running_beside(batch)
        (removed,) = run.admit(submit(long, SHORT))
        for _ in range(num_steps):
            run.step()
        (prompt,) = batch._executor.prompts
        seen.add(prompt.num_slices_left > 0)
        num_computed = prompt.num_computed + prompt.num_chunk_tokens
        run.remove(removed)
        (again,) = run.admit(submit(long, SHORT))
        while not run.tokens[again]:
            run.step()
        assert run.last[again].num_cached_tokens == num_computed
        assert len(run.tokens[running]) > BURST_ROW_TOKENS + num_steps
    assert True in seen


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_a_removed_prompt_holds_nothing_once_nobody_decodes(plain: TextModel, ends_by_itself: bool) -> None:
    """The batch has work until a removed prompt has been dropped."""
    batch = fresh(plain)
    run = Run(batch)
    (running,) = run.admit(submit(tokens_of(12), SHORT))
    while len(run.tokens[running]) < 6:
        run.step()
    (removed,) = run.admit(submit(tokens_of(400), SHORT))
    run.step()
    run.remove(removed)
    if ends_by_itself:
        run.to_the_end()
    else:
        run.remove(running)
    while batch.has_work:
        batch.step()
    assert batch._executor.rows_bytes == 0
    assert batch.prompt_cache_bytes > 0


def test_a_prompt_with_the_same_prefix_starts_beside_a_chunk_under_way(plain: TextModel) -> None:
    """It starts from the tokens that are computed, without those of the chunk under way."""
    shared = tokens_of(200)
    one, other = [*shared, *tokens_of(300)], [*shared, *tokens_of(330)]
    expected = all_of(fresh(plain), submit(one, SHORT)) + all_of(fresh(plain), submit(other, SHORT))
    run, _ = running_beside(fresh(plain))
    rows = run.admit(submit(one, SHORT), submit(other, SHORT))
    while run.live & set(rows):
        run.step()
    assert [run.tokens[row] for row in rows] == expected
    assert run.last[rows[1]].num_cached_tokens == 200
