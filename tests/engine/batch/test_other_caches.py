"""Models whose caches are not plain: state-space layers that cannot be trimmed, windows, and chunks."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from periscope.core import GenerationParams
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.text_model import TextModel
from periscope.errors import ModelLoadError
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import write_text_model

RANDOM = random.Random(3)
GREEDY = GenerationParams(temperature=0.0, max_tokens=12)
SETTINGS = EngineConfig(prompt_cache_bytes=4 * 2**20, prefill_chunk_size=48)


def prompt(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


@pytest.fixture(scope="module", params=["lfm2", "gemma3_text", "llama4"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    kind = str(request.param)
    return load(write_text_model(tmp_path_factory.mktemp(kind) / kind, model_type=kind), SETTINGS)


@pytest.fixture(scope="module", params=["qwen3", "lfm2", "gemma3_text", "llama4"])
def any_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    kind = str(request.param)
    return load(write_text_model(tmp_path_factory.mktemp(kind) / kind, model_type=kind), SETTINGS)


def test_alone_and_batched_a_request_gets_the_same(model: TextModel) -> None:
    """Rows of different lengths join and end with the tokens they get alone."""
    batch = model.new_batch()
    submits = [
        submit(prompt(length), GenerationParams(temperature=0.0, max_tokens=5 + length % 9))
        for length in (1, 5, 30, 47, 90, 140, 200, 64)
    ]
    expected = []
    for each in submits:
        batch.clear_prompt_cache()
        expected += all_of(batch, each)
    batch.clear_prompt_cache()
    assert all_of(batch, *submits) == expected


def test_a_prompt_of_one_token_joins_rows_that_decode(any_model: TextModel) -> None:
    """Its caches are empty when it joins or takes the place of a row that has ended: all get what they get alone."""
    texts = [prompt(length) for length in (40, 30, 20, 1, 1, 25, 1)]
    submits = [submit(text, GenerationParams(temperature=0.0, max_tokens=9 + 2 * i)) for i, text in enumerate(texts)]
    batch = any_model.new_batch()
    expected = []
    for each in submits:
        batch.clear_prompt_cache()
        expected += all_of(batch, each)
    batch.clear_prompt_cache()
    run = Run(batch)
    rows = []
    for each in submits:
        rows += run.admit(each)
        run.step()
        run.step()
    run.to_the_end()
    assert [run.tokens[row] for row in rows] == expected


def test_a_conversation_goes_on_from_its_last_state(model: TextModel) -> None:
    """The next prompt starts from the whole state after an answer, and gets the right tokens."""
    history = prompt(40)
    for turn in range(4):
        run = Run(model.new_batch())
        (row,) = run.admit(submit(history, GREEDY))
        run.to_the_end()
        assert (run.last[row].num_cached_tokens > 0) == (turn > 0)
        (cold,) = all_of(load_again(model), submit(history, GREEDY))
        assert run.tokens[row] == cold
        history += [*run.tokens[row], *prompt(15)]


def load_again(model: TextModel) -> TextBatch:
    """A batch of the same weights with an empty prompt cache."""
    model._prompt_cache.clear()
    return model.new_batch()


def test_a_changed_ending_goes_on_from_the_last_checkpoint(model: TextModel) -> None:
    """Another question after the same system prompt prefills only the question, though no state can be trimmed."""
    system = prompt(100)
    first, second = [*system, *prompt(30)], [*system, *prompt(30)]
    batch = model.new_batch()
    batch.clear_prompt_cache()
    all_of(batch, submit(first, GREEDY, checkpoints=(100,)))
    run = Run(batch)
    (row,) = run.admit(submit(second, GREEDY, checkpoints=(100,)))
    run.to_the_end()
    assert run.last[row].num_cached_tokens == 100
    batch.clear_prompt_cache()
    assert all_of(batch, submit(second, GREEDY)) == [run.tokens[row]]


def test_repeating_a_prompt_gives_the_same_tokens(model: TextModel) -> None:
    """An exact repeat gets the same tokens, whether or not a state was kept."""
    batch = model.new_batch()
    again = submit(prompt(120), GREEDY, checkpoints=(70, 110))
    batch.clear_prompt_cache()
    first = all_of(batch, again)
    assert all_of(batch, again, again) == first * 2


def test_a_prefix_that_has_left_the_window_is_prefilled_again(model: TextModel) -> None:
    """A long prompt's state is not trimmed to tokens that have left its window."""
    prefix = prompt(100)
    long, short = [*prefix, *prompt(300)], [*prefix, *prompt(20)]
    (cold,) = all_of(load_again(model), submit(short, GREEDY))
    batch = load_again(model)
    all_of(batch, submit(long, GREEDY))
    assert all_of(batch, submit(short, GREEDY)) == [cold]


def test_rows_that_cannot_be_batched_still_decode_at_the_same_time(tmp_path: Path) -> None:
    """Requests to such a model take turns token by token, and none waits for another to end."""
    batch = load(write_text_model(tmp_path / "chunks", model_type="llama4"), SETTINGS).new_batch()
    run = Run(batch)
    endless = GenerationParams(temperature=0.0, max_tokens=500, logit_bias=((257, -100.0),))
    first, second = run.admit(submit(prompt(20), endless), submit(prompt(30), endless))
    while not (len(run.tokens[first]) > 20 and len(run.tokens[second]) > 20):
        run.step()
    assert len(run.tokens[first]) + len(run.tokens[second]) < 100


def test_such_a_model_cannot_be_drafted_for(tmp_path: Path) -> None:
    """A model whose caches cannot be trimmed is refused a draft model and prompt look-up at load."""
    path = write_text_model(tmp_path / "hybrid", model_type="lfm2")
    with pytest.raises(ModelLoadError, match="draft_model"):
        load(path, EngineConfig(draft_model=str(path)))
    with pytest.raises(ModelLoadError, match="prompt_lookup"):
        load(path, EngineConfig(prompt_lookup=True))
