"""Prompts that are read a few layers at a time, on real (tiny) models of several layers and kinds of caches."""

from __future__ import annotations

import random
from collections.abc import Callable

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from periscope.core import GenerationParams
from periscope.engine import EngineConfig
from periscope.engine.batch.prompt import Prompt
from periscope.engine.batch.rows import Row
from periscope.engine.batch.sampling import GREEDY
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.text_model import TextModel
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import SHAPES, write_text_model

RANDOM = random.Random(11)
NUM_LAYERS = 6
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
    """A clock by which everything takes a second."""
    ticks = iter(range(10**6))
    return lambda: float(next(ticks))


def prompt_of(model: TextModel, tokens: list[int]) -> Prompt:
    row = Row(1, mx.array(tokens), list(tokens), SHORT, GREEDY, [])  # type: ignore[arg-type]
    return Prompt(row, (), caches=make_prompt_cache(model._model))


def test_layer_by_layer_the_caches_become_what_they_become_at_once(model: TextModel) -> None:
    """The next token's logits are the same to the bit, whatever kind of caches the model has."""
    tokens = tokens_of(150)
    pieces, whole = prompt_of(model, tokens), prompt_of(model, tokens)
    for num in (100, 49):
        pieces.start_chunk(model._model, num)
        while pieces.num_slices_left:
            pieces.compute(1, ticking())
        whole.start_chunk(model._model, num)
        whole.compute(whole.num_slices_left, ticking())
    assert pieces.is_complete
    assert whole.is_complete
    last = mx.array([tokens[-1:]])
    assert mx.array_equal(model._model(last, cache=pieces.caches), model._model(last, cache=whole.caches))


def test_a_chunk_counts_when_all_of_its_layers_are_there(plain: TextModel) -> None:
    """Until then nothing of it is read; then its cost is known, per token of it."""
    prompt = prompt_of(plain, tokens_of(41))
    prompt.start_chunk(plain._model, 40)
    assert [prompt.compute(1, ticking()) for _ in range(NUM_SLICES)] == [0, 0, 0, 0, 40]
    assert prompt.num_computed == 40
    assert prompt.token_s == NUM_SLICES / 40


NUM_SLICES = NUM_LAYERS - 1


def running_beside(batch: TextBatch) -> tuple[Run, int]:
    """A batch in which one row decodes, without an end."""
    run = Run(batch)
    (running,) = run.admit(submit(tokens_of(12), ENDLESS))
    while len(run.tokens[running]) < 4:
        run.step()
    return run, running


def test_beside_a_stream_prompts_get_the_same_tokens(model: TextModel) -> None:
    """Long and short prompts read in turns, a few layers each, say what they say alone."""
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
    """A batch that has seen nothing, by whose clock every step and every few layers take as long."""
    batch = model.new_batch(ticking())
    batch.clear_prompt_cache()
    return batch


def test_one_removed_between_two_layers_leaves_what_it_had_read_with_its_chunk(plain: TextModel) -> None:
    """The chunk under way is computed to its end, then the state is kept, and the row is gone."""
    long = tokens_of(1000)
    seen = set()
    for num_steps in range(1, 10):
        batch = fresh(plain)
        run, running = running_beside(batch)
        (gone,) = run.admit(submit(long, SHORT))
        for _ in range(num_steps):
            run.step()
        (prompt,) = batch._executor.prompts
        seen.add(prompt.num_slices_left > 0)
        num_read = prompt.num_computed + prompt.num_chunk_tokens
        run.remove(gone)
        (again,) = run.admit(submit(long, SHORT))
        while not run.tokens[again]:
            run.step()
        assert run.last[again].num_cached_tokens == num_read
        assert len(run.tokens[running]) > 4
    assert True in seen


@pytest.mark.parametrize("ends_by_itself", [True, False])
def test_a_removed_prompt_holds_nothing_once_nobody_decodes(plain: TextModel, ends_by_itself: bool) -> None:
    """The batch asks for a further step until all of it has gone."""
    batch = fresh(plain)
    run = Run(batch)
    (running,) = run.admit(submit(tokens_of(12), SHORT))
    while len(run.tokens[running]) < 6:
        run.step()
    (gone,) = run.admit(submit(tokens_of(400), SHORT))
    run.step()
    run.remove(gone)
    if ends_by_itself:
        run.to_the_end()
    else:
        run.remove(running)
    while batch.has_work:
        batch.step()
    assert batch._executor.rows_bytes == 0
    assert batch.prompt_cache_bytes > 0


def test_a_neighbour_that_begins_alike_goes_on_from_a_chunk_under_way(plain: TextModel) -> None:
    """What is borrowed is what is read, not what is still between two layers."""
    shared = tokens_of(200)
    one, other = [*shared, *tokens_of(300)], [*shared, *tokens_of(330)]
    expected = all_of(fresh(plain), submit(one, SHORT)) + all_of(fresh(plain), submit(other, SHORT))
    run, _ = running_beside(fresh(plain))
    rows = run.admit(submit(one, SHORT), submit(other, SHORT))
    while run.live & set(rows):
        run.step()
    assert [run.tokens[row] for row in rows] == expected
    assert run.last[rows[1]].num_cached_tokens == 200
