"""Which rows share a batch: costs as pure functions, and a real batch of long and short rows."""

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
    """Rows of similar length share a batch: a further forward pass would cost more than padding."""
    assert GROUPING.place(3000, [[1000, 1200, 800]]) == 0
    assert GROUPING.place(100, [[3000, 1000]]) == 0


def test_a_long_row_does_not_make_its_many_neighbours_as_long() -> None:
    """A row of thirty thousand tokens gets a batch of its own, instead of padding fifteen short rows to its length."""
    assert GROUPING.place(30_000, [[500] * 15]) == 1
    assert GROUPING.place(500, [[500] * 15, [30_000]]) == 0
    assert GROUPING.place(28_000, [[500] * 15, [30_000]]) == 1


def test_rows_with_bounded_caches_share_one_batch() -> None:
    """Where a window bounds the caches, long and short rows share a batch."""
    assert SLIDING.place(30_000, [[5000] * 15]) == 0


@given(st.lists(st.integers(1, 60_000), min_size=1, max_size=24))
def test_several_batches_never_take_more_memory_than_one(lengths: list[int]) -> None:
    """The bytes of all batches are at most those of one batch, padded to the longest row."""
    num_bytes = GROUPING.cache_bytes(GROUPING.joined([], lengths))
    assert num_bytes <= len(lengths) * GROUPING.footprint.nbytes(max(lengths))
    assert num_bytes >= sum(GROUPING.footprint.nbytes(length) for length in lengths)


def splitting_batch(model: TextModel, inside: Unreliable | None = None) -> TextBatch:
    """A batch whose forward passes cost nothing, so that rows of different lengths never share one."""
    return batch_over(model, inside, forward_pass_bytes=0, cache_bytes=2**20)


@pytest.fixture
def model(tiny_text_model: Path) -> TextModel:
    return load(tiny_text_model)


def prompt(length: int) -> list[int]:
    return [(7 * i * i + length) % 250 for i in range(length)]


def test_rows_in_several_batches_get_the_same_tokens(model: TextModel) -> None:
    """Long and short rows join, decode in separate batches and end, with the tokens they get alone."""
    lengths = (700, 20, 1000, 30, 600, 25)
    expected = [tokens for length in lengths for tokens in all_of(batch_over(model), submit(prompt(length)))]
    batch = splitting_batch(model)
    run = Run(batch)
    (endless,) = run.admit(submit(prompt(10), ENDLESS))
    run.step()
    rows = run.admit(*(submit(prompt(length)) for length in lengths))
    most_batches = 0
    while run.live != {endless}:
        run.step()
        most_batches = max(most_batches, len(batch._executor.decoding.reaches))
    assert [run.tokens[row] for row in rows] == expected
    assert most_batches > 1


def test_a_failed_forward_pass_fails_only_its_own_rows(model: TextModel) -> None:
    """When the long row's forward pass raises, that row fails, and the short row gets the tokens it gets alone."""
    unreliable = Unreliable(model._model)
    (expected,) = all_of(batch_over(model), submit(prompt(20)))
    run = Run(splitting_batch(model, unreliable))
    (short,) = run.admit(submit(prompt(20)))
    run.step()
    unreliable.poison = 255
    (long,) = run.admit(submit([*prompt(600), 255]))  # the last token of a prompt is the first input of decoding
    run.to_the_end()
    assert isinstance(run.last[long].error, RuntimeError)
    assert run.tokens[short] == expected


def test_a_long_row_s_next_turn_finds_its_state(model: TextModel) -> None:
    """The state of a row in a batch of its own is kept, and the next turn starts from it."""
    run = Run(splitting_batch(model))
    run.admit(submit(prompt(10), ENDLESS))
    (long,) = run.admit(submit(prompt(900)))
    while long in run.live:
        run.step()
    (again,) = run.admit(submit([*prompt(900), *run.tokens[long], 5, 6]))
    while not run.tokens[again]:
        run.step()
    assert run.last[again].num_cached_tokens >= 900
