"""Models whose caches are not plain: state-space layers that cannot be cut back, windows, and chunks."""

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


def test_alone_and_in_company_a_request_gets_the_same(model: TextModel) -> None:
    """Rows of different lengths come and go; nobody's tokens change."""
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


def test_a_conversation_goes_on_from_its_last_state(model: TextModel) -> None:
    """The state after an answer is a beginning of the next prompt: it is used whole, and the tokens are right."""
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
    """A batch of the same weights that has seen nothing."""
    model._prompt_cache.clear()
    return model.new_batch()


def test_a_changed_ending_goes_on_from_the_last_checkpoint(model: TextModel) -> None:
    """Another question after the same system prompt computes only the question, though nothing can be cut back."""
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
    """An exact repeat is right, whatever of it could be kept."""
    batch = model.new_batch()
    again = submit(prompt(120), GREEDY, checkpoints=(70, 110))
    batch.clear_prompt_cache()
    first = all_of(batch, again)
    assert all_of(batch, again, again) == first * 2


def test_a_beginning_that_has_left_the_window_is_computed_again(model: TextModel) -> None:
    """A long prompt's state is not cut back to where its window no longer reaches."""
    beginning = prompt(100)
    long, short = [*beginning, *prompt(300)], [*beginning, *prompt(20)]
    (cold,) = all_of(load_again(model), submit(short, GREEDY))
    batch = load_again(model)
    all_of(batch, submit(long, GREEDY))
    assert all_of(batch, submit(short, GREEDY)) == [cold]


def test_caches_that_cannot_stand_side_by_side_still_decode_together(tmp_path: Path) -> None:
    """Requests to such a model take turns token by token; none waits for another's end."""
    batch = load(write_text_model(tmp_path / "chunks", model_type="llama4"), SETTINGS).new_batch()
    run = Run(batch)
    endless = GenerationParams(temperature=0.0, max_tokens=500, logit_bias=((257, -100.0),))
    first, second = run.admit(submit(prompt(20), endless), submit(prompt(30), endless))
    while not (len(run.tokens[first]) > 20 and len(run.tokens[second]) > 20):
        run.step()
    assert len(run.tokens[first]) + len(run.tokens[second]) < 100


def test_such_a_model_cannot_be_drafted_for(tmp_path: Path) -> None:
    """What cannot be cut back cannot take back a wrong guess; the error says so at load."""
    path = write_text_model(tmp_path / "hybrid", model_type="lfm2")
    with pytest.raises(ModelLoadError, match="draft_model"):
        load(path, EngineConfig(draft_model=str(path)))
