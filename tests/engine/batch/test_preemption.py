"""More rows than memory: the newest are preempted, go on where they were later, and all are served."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import FinishReason, GenerationParams
from periscope.engine.batch.row_memory import Holding, newest_to_preempt
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit
from tests.engine.batch.batches import grammar_of
from tests.engine.driving import NOBODY, Run, all_of, load, submit
from tests.tiny_models import SHAPES, write_text_model

RANDOM = random.Random(11)
#: From within the first block of 256 tokens to the third.
NEARLY_A_BLOCK, REST = 240, 280
#: No answer ends by itself.
NO_END = ((257, -100.0),)
PARAMS = GenerationParams(temperature=0.0, max_tokens=REST, logit_bias=NO_END)
#: Memory of a forward pass beside the caches on so small a model, and of a layer copied while it grows.
FORWARD_PASS_BYTES = 3 * 2**19

holdings = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 1000)), unique_by=lambda pair: pair[0]).map(
    lambda pairs: [Holding(*pair) for pair in pairs]
)


def prompt(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


@given(holdings, st.integers(-100, 5000))
def test_no_more_of_the_newest_are_preempted_than_necessary(holding: list[Holding], room_bytes: int) -> None:
    """The preempted are the newest, never include the oldest, and with one fewer the rest would not fit."""
    preempted = newest_to_preempt(holding, room_bytes)
    stay = sorted((each for each in holding if each.row_id not in preempted), key=lambda each: each.row_id)
    assert bool(stay) == bool(holding)
    assert all(row_id > stay[-1].row_id for row_id in preempted)
    assert len(stay) <= 1 or sum(each.num_bytes for each in stay) <= room_bytes
    if preempted:
        back = next(each for each in holding if each.row_id == min(preempted))
        assert sum(each.num_bytes for each in (*stay, back)) > room_bytes


@pytest.fixture(scope="module")
def plain(tiny_text_model: Path) -> TextModel:
    return load(tiny_text_model)


def limited(path: Path, num_rows: int, num_tokens: int) -> TextModel:
    """A model with memory for `num_rows` rows of `num_tokens` tokens."""
    row_bytes = load(path)._budget.footprint.nbytes(num_tokens)
    return load(path, EngineConfig(kv_limit_bytes=num_rows * row_bytes, prefill_chunk_size=64))


@pytest.fixture
def batch(tiny_text_model: Path) -> Iterator[TextBatch]:
    """Memory for two rows of 768 tokens."""
    made = limited(tiny_text_model, 2, 768).new_batch()
    yield made
    made.close()


def used_bytes(batch: TextBatch) -> int:
    return batch._executor.rows_bytes + batch.prompt_cache_bytes


def run_within(batch: TextBatch, *submits: Submit, limit_bytes: int) -> tuple[Run, list[int], int]:
    """Run all at once, checking the limit after each step. Returns the run, row ids and number of preemptions."""
    run, num_preempted, before = Run(batch), 0, 0
    rows = run.admit(*submits)
    while run.live:
        run.step()
        assert used_bytes(batch) <= limit_bytes
        again = sum(bool(waiting.row.num_read) for waiting in batch._executor.prompts)
        num_preempted, before = num_preempted + max(again - before, 0), again
    return run, rows, num_preempted


def test_eight_long_rows_in_memory_for_two_get_the_same_tokens(plain: TextModel, batch: TextBatch) -> None:
    """Rows grow from one block to three; some are preempted, all get the usual tokens, within the limit."""
    limit_bytes = 2 * plain._budget.footprint.nbytes(768)
    submits = [submit(prompt(5), replace(PARAMS, max_tokens=515)) for _ in range(8)]
    expected = all_of(plain.new_batch(), *submits)
    mx.clear_cache()
    mx.reset_peak_memory()
    start_bytes = mx.get_active_memory()
    run, rows, num_preempted = run_within(batch, *submits, limit_bytes=limit_bytes)
    assert [run.tokens[row] for row in rows] == expected
    assert batch.num_preemptions >= num_preempted >= 2
    assert mx.get_peak_memory() <= start_bytes + limit_bytes + FORWARD_PASS_BYTES


def test_the_oldest_goes_on_without_a_pause(batch: TextBatch) -> None:
    """The oldest row gets a token with every step; the others are served too."""
    run = Run(batch)
    oldest, *others = run.admit(*(submit(prompt(NEARLY_A_BLOCK), PARAMS) for _ in range(4)))
    while not run.tokens[oldest]:
        run.step()
    num_steps = run.num_steps
    while oldest in run.live:
        run.step()
    assert run.num_steps - num_steps == REST - 1
    run.to_the_end()
    assert all(len(run.tokens[row]) == REST for row in others)


@pytest.mark.parametrize("model_type", sorted(set(SHAPES) - {"qwen3"}))
def test_other_kinds_of_caches_are_bounded_too(model_type: str, tmp_path: Path) -> None:
    """Rows of windows, state-space layers and chunks are preempted and get the tokens they get alone."""
    path = write_text_model(tmp_path / model_type, model_type=model_type)
    model = limited(path, 2, 768)
    submits = [submit(prompt(NEARLY_A_BLOCK), PARAMS) for _ in range(3)]
    expected = all_of(load(path).new_batch(), *submits)
    limit_bytes = model._budget.limit_bytes or 0
    run, rows, _ = run_within(model.new_batch(), *submits, limit_bytes=limit_bytes)
    assert [run.tokens[row] for row in rows] == expected


def test_sampling_penalties_and_logprobs_go_on_where_they_were(plain: TextModel, batch: TextBatch) -> None:
    """Preemption changes nothing of a row's sampling, its penalties or its log-probabilities."""
    submits = [
        submit(
            prompt(NEARLY_A_BLOCK),
            GenerationParams(
                temperature=0.9,
                seed=seed,
                top_k=40,
                max_tokens=REST,
                frequency_penalty=0.3,
                presence_penalty=0.2,
                repetition_penalty=1.1,
                logprobs=True,
                logit_bias=NO_END,
            ),
        )
        for seed in range(4)
    ]
    expected = all_of(plain.new_batch(), *submits)
    limit_bytes = 2 * plain._budget.footprint.nbytes(768)
    run, rows, num_preempted = run_within(batch, *submits, limit_bytes=limit_bytes)
    assert num_preempted
    assert [run.tokens[row] for row in rows] == expected


def test_a_grammar_goes_on_where_it_was(plain: TextModel, batch: TextBatch) -> None:
    """A row constrained to a schema that is preempted goes on inside its JSON."""
    schema = {"type": "array", "items": {"type": "boolean"}, "minItems": 100, "maxItems": 100}
    grammar = grammar_of(plain, schema)

    def constrained(tokens: list[int]) -> Submit:
        return Submit(submit(tokens).prompt, GenerationParams(temperature=0.0, max_tokens=REST), NOBODY, grammar)

    prompts = [prompt(NEARLY_A_BLOCK) for _ in range(4)]
    expected = all_of(plain.new_batch(), *map(constrained, prompts))
    limit_bytes = 2 * plain._budget.footprint.nbytes(768)
    run, rows, num_preempted = run_within(batch, *map(constrained, prompts), limit_bytes=limit_bytes)
    assert num_preempted
    assert [run.tokens[row] for row in rows] == expected


def test_a_row_that_fills_all_memory_by_itself_ends_for_its_length(tiny_text_model: Path) -> None:
    """It ends with finish reason `length`, with the same tokens alone and batched."""
    model = limited(tiny_text_model, 1, 512)
    submits = [submit(prompt(12), replace(PARAMS, max_tokens=1500)) for _ in range(3)]
    limit_bytes = model._budget.limit_bytes or 0
    run, rows, _ = run_within(model.new_batch(), *submits, limit_bytes=limit_bytes)
    assert [len(run.tokens[row]) for row in rows] == [500] * 3
    assert all(run.last[row].finish_reason is FinishReason.LENGTH for row in rows)


def test_a_preempted_row_can_be_removed(batch: TextBatch) -> None:
    """A preempted row that is removed holds no memory, and the others go on."""
    run = Run(batch)
    rows = run.admit(*(submit(prompt(NEARLY_A_BLOCK), PARAMS) for _ in range(4)))
    while not any(waiting.row.num_read for waiting in batch._executor.prompts):
        run.step()
    waiting = next(waiting.row.id for waiting in batch._executor.prompts if waiting.row.num_read)
    run.remove(waiting)
    run.to_the_end()
    assert all(len(run.tokens[row]) == REST for row in rows if row != waiting)
    assert batch._executor.rows_bytes == 0


def test_a_prefilling_prompt_is_preempted_for_older_rows(plain: TextModel, tiny_text_model: Path) -> None:
    """The caches of a newer prompt are freed when an older row grows, and it is prefilled again later."""
    batch = limited(tiny_text_model, 3, 768).new_batch()
    submits = [submit(prompt(500), PARAMS) for _ in range(2)]
    late = submit(prompt(700), GenerationParams(temperature=0.0, max_tokens=20))
    expected = all_of(plain.new_batch(), *submits, late)
    run = Run(batch)
    rows = run.admit(*submits)
    while not run.tokens[rows[1]]:
        run.step()
    rows += run.admit(late)
    was_read = False
    while run.live:
        run.step()
        was_read |= any(waiting.caches is not None for waiting in batch._executor.prompts)
    assert was_read
    assert [run.tokens[row] for row in rows] == expected
