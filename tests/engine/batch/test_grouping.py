"""Which rows decode together: pure costs, and a real batch of long and short rows."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import GenerationParams
from periscope.engine.batch.grouping import Grouping
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.device.memory import KVFootprint, _Layer
from periscope.engine.text_model import TextModel
from tests.engine.batch.batches import Unreliable, batch_over
from tests.engine.driving import Run, all_of, load, submit

MIB = 2**20
#: As of a model of 8B parameters: a tenth of a MiB for a token, 4 GiB of weights.
GROUPING = Grouping(KVFootprint((_Layer(MIB // 10, None, 0),)), forward_pass_bytes=4096 * MIB)
#: The same with nothing but a sliding window.
SLIDING = Grouping(KVFootprint((_Layer(MIB // 10, 4096, 0),)), forward_pass_bytes=4096 * MIB)
ENDLESS = GenerationParams(temperature=0.0, max_tokens=1500, logit_bias=((257, -100.0),))


def test_rows_of_a_chat_decode_together() -> None:
    """A pass over the weights for each would be dearer than padding a thousand tokens to three."""
    assert GROUPING.place(3000, [[1000, 1200, 800]]) == 0
    assert GROUPING.place(100, [[3000, 1000]]) == 0


def test_a_long_row_does_not_make_its_many_neighbours_as_long() -> None:
    """Fifteen short rows beside one of thirty thousand tokens would take its memory and its time sixteen times."""
    assert GROUPING.place(30_000, [[500] * 15]) == 1
    assert GROUPING.place(500, [[500] * 15, [30_000]]) == 0
    assert GROUPING.place(28_000, [[500] * 15, [30_000]]) == 1


def test_a_window_that_bounds_the_caches_keeps_all_together() -> None:
    """Where a row's length costs nothing there is nothing to part for."""
    assert SLIDING.place(30_000, [[5000] * 15]) == 0


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=24))
def test_parting_never_takes_more_memory_than_one_batch_would(lengths: list[int]) -> None:
    """What is reckoned with before a prompt is begun is bounded by padding all to the longest."""
    held = GROUPING.cache_bytes(GROUPING.joined([], lengths))
    assert held <= len(lengths) * GROUPING.footprint.nbytes(max(lengths))
    assert held >= sum(GROUPING.footprint.nbytes(length) for length in lengths)


def parting_batch(model: TextModel, inside: Unreliable | None = None) -> TextBatch:
    """A batch to which a pass costs nothing, so that rows of different lengths part at once."""
    return batch_over(model, inside, forward_pass_bytes=0, cache_bytes=2**20)


@pytest.fixture
def model(tiny_text_model: Path) -> TextModel:
    return load(tiny_text_model)


def prompt(length: int) -> list[int]:
    return [(7 * i * i + length) % 250 for i in range(length)]


def test_rows_that_part_say_what_they_say_together(model: TextModel) -> None:
    """Long and short rows come, decode side by side and go, and nobody's tokens change."""
    lengths = (700, 20, 1000, 30, 600, 25)
    expected = [tokens for length in lengths for tokens in all_of(batch_over(model), submit(prompt(length)))]
    batch = parting_batch(model)
    run = Run(batch)
    (endless,) = run.admit(submit(prompt(10), ENDLESS))
    run.step()
    rows = run.admit(*(submit(prompt(length)) for length in lengths))
    most = 0
    while run.live != {endless}:
        run.step()
        most = max(most, len(batch._executor.decoding.reaches))
    assert [run.tokens[row] for row in rows] == expected
    assert most > 1


def test_a_step_that_fails_takes_only_the_rows_of_its_pass(model: TextModel) -> None:
    """The long row's pass runs out of memory: the short ones' tokens are what they were, and the worker goes on."""
    unreliable = Unreliable(model._model)
    (expected,) = all_of(batch_over(model), submit(prompt(20)))
    run = Run(parting_batch(model, unreliable))
    (short,) = run.admit(submit(prompt(20)))
    run.step()
    unreliable.poison = 255
    (long,) = run.admit(submit([*prompt(600), 255]))  # the last token of a prompt is read by the decode step
    run.to_the_end()
    assert isinstance(run.last[long].error, RuntimeError)
    assert run.tokens[short] == expected


def test_a_long_row_s_next_turn_finds_its_state(model: TextModel) -> None:
    """What a row apart leaves behind is kept like anybody's."""
    run = Run(parting_batch(model))
    run.admit(submit(prompt(10), ENDLESS))
    (long,) = run.admit(submit(prompt(900)))
    while long in run.live:
        run.step()
    (again,) = run.admit(submit([*prompt(900), *run.tokens[long], 5, 6]))
    while not run.tokens[again]:
        run.step()
    assert run.last[again].num_cached_tokens >= 900
