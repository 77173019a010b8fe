"""Several prompts in one forward pass: which ones are, and that each gets the tokens that it gets alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import GenerationParams
from periscope.engine import EngineConfig
from periscope.engine.batch.prefill import (
    BURST_ROW_TOKENS,
    PASS_TOKENS,
    SHARED_CONTEXT_TOKENS,
    SHARED_TOKENS,
    ChunkPart,
    sharing,
)
from periscope.engine.batch.sharing import Source, StateView
from periscope.engine.batch.step_plan import Prefill, PromptView
from periscope.engine.text_model import TextModel
from tests.engine.batch.batches import batch_over
from tests.engine.batch.planning import DECODING, NUM_SLICES, TIMINGS, plan, prompt, tokens
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import SHAPES, write_text_model

RANDOM = random.Random(5)
SHORT = GenerationParams(temperature=0.0, max_tokens=8, logit_bias=((257, -100.0),))


def tokens_of(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


class Watched:
    """A model, and the shapes `(prompts, tokens)` of what it was called with. Fails when it is told to."""

    def __init__(self, inside: Any) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.fails_at_rows = 0
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inside, name)

    def __call__(self, inputs: mx.array, cache: Any) -> mx.array:
        self.shapes.append(inputs.shape)
        if inputs.shape[0] == self.fails_at_rows and inputs.shape[1] > 1:
            raise RuntimeError("[metal::malloc] out of memory")
        logits: mx.array = self._inside(inputs, cache=cache)
        return logits


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    config = EngineConfig(prompt_cache_bytes=16 * 2**20, prefill_chunk_size=64)
    return load(write_text_model(tmp_path_factory.mktemp("plain") / "deep", num_layers=6), config)


parts = st.builds(ChunkPart, st.integers(1, 600), st.integers(0, 3000))


@given(parts, st.lists(parts, max_size=20))
def test_what_shares_a_chunk_is_worth_it_and_bounded(first: ChunkPart, others: list[ChunkPart]) -> None:
    """All parts padded to the longest stay within the bounds, and padding costs less than the passes it saves."""
    chosen = sharing(first, others, SHARED_TOKENS)
    together = [first, *(others[index] for index in chosen)]
    if not chosen:
        return
    longest, context = max(each.num_tokens for each in together), max(each.num_computed for each in together)
    padded = longest * len(together)
    assert padded <= SHARED_TOKENS
    assert padded + context * len(together) <= SHARED_CONTEXT_TOKENS
    assert padded - sum(each.num_tokens for each in together) <= PASS_TOKENS * len(chosen)
    assert len(set(chosen)) == len(chosen)


def may_share(row_id: int, length: int, **changes: Any) -> PromptView:
    return prompt(row_id, length, may_share_chunk=True, **changes)


def test_a_burst_of_short_prompts_is_one_chunk() -> None:
    """Prompts of about the same length are started and prefilled together, and join together."""
    planned = plan(may_share(1, 11), may_share(2, 13), may_share(3, 12))
    assert planned.prefills == (Prefill(1, NUM_SLICES, 10, ((3, 11), (2, 12))),)
    assert [start.row_id for start in planned.starts] == [1, 2, 3]
    assert planned.joins == (1, 2, 3)


@pytest.mark.parametrize(
    "other",
    [may_share(2, 90), prompt(2, 12), may_share(2, 12, is_started=True, num_chunk_tokens=11, num_slices_left=1)],
)
def test_what_would_not_pay_or_cannot_share_has_its_own_chunk(other: PromptView) -> None:
    """One that is much longer, one with images or scores, and one that is under way are not in another's chunk."""
    assert plan(may_share(1, 11), other).prefills[0].others == ()


def test_the_tails_of_several_prompts_share_a_chunk() -> None:
    """What is left of prompts after a kept or an own beginning counts, not how long they are."""
    tails = [may_share(n, 600 + n, is_started=True, num_computed=590) for n in (1, 2)]
    assert plan(*tails).prefills == (Prefill(1, NUM_SLICES, 10, ((2, 11),)),)


def test_a_prompt_that_is_kept_whole_joins_beside_a_chunk_and_not_in_it() -> None:
    """With nothing left to compute it would wait for the tokens of others, and decoding rows with it."""
    repeat = StateView(Source.KEPT, 1, tokens(40, 2), 40)
    planned = plan(may_share(1, 20), may_share(2, 40), kept=[repeat])
    assert planned.prefills == (Prefill(1, NUM_SLICES, 19),)
    assert planned.joins == (1, 2)


def test_beside_decoding_rows_a_shared_chunk_is_cut_into_slices_and_goes_on_as_one() -> None:
    """Its slices cost what all of its tokens cost; a plan continues it once, whichever of its prompts is looked at."""
    dear = replace(TIMINGS, token_s=0.1)
    begun = plan(may_share(2, 20), may_share(3, 21), batches=DECODING, timings=dear)
    (only,) = begun.prefills
    assert (only.others, begun.joins) == (((3, 20),), ())
    assert only.num_slices == round(3.0 / (39 * 0.1 / NUM_SLICES))
    under_way = [
        may_share(n, length, is_started=True, num_chunk_tokens=length - 1, num_slices_left=2, chunk_rows=(2, 3))
        for n, length in ((2, 20), (3, 21))
    ]
    on = plan(*under_way, batches=DECODING, timings=dear)
    assert (on.prefills, on.joins) == ((Prefill(2, 2),), (2, 3))


def test_a_shared_chunk_of_removed_prompts_is_finished_once() -> None:
    """Both prompts have been removed: one item computes what is left for both."""
    retired = [
        may_share(n, 20, is_started=True, num_chunk_tokens=19, num_slices_left=2, chunk_rows=(2, 3), is_retired=True)
        for n in (2, 3)
    ]
    assert plan(*retired).prefills == (Prefill(2, 2),)


def run_of(model: TextModel, watched: Watched, prompts: Sequence[Sequence[int]], **changes: Any) -> list[list[int]]:
    return all_of(batch_over(model, watched, **changes), *(submit(each, SHORT) for each in prompts))


def test_prompts_in_one_chunk_get_the_tokens_they_get_alone(model: TextModel) -> None:
    """A burst of prompts of different lengths, one of them of a single token, is one forward pass."""
    prompts = [tokens_of(length) for length in (9, 12, 7, 1, 10)]
    expected = [run_of(model, Watched(model._model), [each])[0] for each in prompts]
    watched = Watched(model._model)
    assert run_of(model, watched, prompts) == expected
    assert [shape for shape in watched.shapes if shape[1] > 1] == [(4, 11)]


def test_tails_behind_kept_beginnings_share_a_chunk(model: TextModel) -> None:
    """Prompts that start from states of different lengths, and one without any, get the tokens they get alone."""
    beginnings = [tokens_of(40), tokens_of(25), []]
    prompts = [[*beginning, *tokens_of(8)] for beginning in beginnings]
    expected = [run_of(model, Watched(model._model), [each])[0] for each in prompts]
    watched = Watched(model._model)
    batch = batch_over(model, watched, cache_bytes=16 * 2**20)
    for beginning in beginnings[:2]:
        all_of(batch, submit(beginning, SHORT))
    watched.shapes.clear()
    run = Run(batch)
    rows = run.admit(*(submit(each, SHORT) for each in prompts))
    run.to_the_end()
    assert [run.tokens[row] for row in rows] == expected
    assert [run.last[row].num_cached_tokens for row in rows] == [40, 25, 0]
    assert [shape for shape in watched.shapes if shape[1] > 1] == [(3, 7)]


def test_a_shared_chunk_that_fails_fails_its_prompts_alone(model: TextModel) -> None:
    """The prompts whose chunk runs out of memory fail; one that decodes, and one that comes later, do not."""
    watched = Watched(model._model)
    run = Run(batch_over(model, watched))
    (decoding,) = run.admit(submit(tokens_of(10), replace(SHORT, max_tokens=40)))
    while not run.tokens[decoding]:
        run.step()
    watched.fails_at_rows = 2
    failing = run.admit(*(submit(tokens_of(10), SHORT) for _ in range(2)))
    while run.live & set(failing):
        run.step()
    watched.fails_at_rows = 0
    (later,) = run.admit(submit(tokens_of(10), SHORT))
    run.to_the_end()
    assert any(run.last[row].error is not None for row in failing)
    assert (len(run.tokens[decoding]), len(run.tokens[later])) == (40, 8)


def test_a_prompt_removed_from_a_shared_chunk_does_not_change_the_others(model: TextModel) -> None:
    """A prompt leaves between two layer slices of the chunk; the others get the tokens they get alone."""
    prompts = [tokens_of(10) for _ in range(3)]
    expected = [run_of(model, Watched(model._model), [each])[0] for each in prompts]
    ticks = iter(range(10**6))
    run = Run(model.new_batch(lambda: float(next(ticks))))
    (decoding,) = run.admit(submit(tokens_of(5), replace(SHORT, max_tokens=60)))
    while len(run.tokens[decoding]) <= BURST_ROW_TOKENS:
        run.step()
    rows = run.admit(*(submit(each, SHORT) for each in prompts))
    run.step()
    shared = [each.row.id for each in run.batch._executor.prompts if each.chunk is not None]
    assert len(shared) == 2
    run.remove(shared[1])
    run.to_the_end()
    stayed = [row for row in rows if row != shared[1]]
    assert [run.tokens[row] for row in stayed] == [expected[rows.index(row)] for row in stayed]


@pytest.mark.parametrize("bits", [8, 4])
def test_prompts_with_quantised_caches_share_a_chunk(bits: int, tmp_path: Path) -> None:
    """Behind kept beginnings of different lengths and without any, each gets the tokens that it gets alone."""
    config = EngineConfig(prompt_cache_bytes=16 * 2**20, prefill_chunk_size=64, kv_bits=bits)
    quantised = load(write_text_model(tmp_path / "wide", head_dim=64, num_layers=6), config)
    beginnings = [tokens_of(40), tokens_of(25), []]
    prompts = [[*beginning, *tokens_of(length)] for beginning, length in zip(beginnings, (12, 9, 11), strict=True)]
    expected = [run_of(quantised, Watched(quantised._model), [each])[0] for each in prompts]
    watched = Watched(quantised._model)
    batch = batch_over(quantised, watched, cache_bytes=16 * 2**20)
    for beginning in beginnings[:2]:
        all_of(batch, submit(beginning, SHORT))
    watched.shapes.clear()
    assert all_of(batch, *(submit(each, SHORT) for each in prompts)) == expected
    assert [shape for shape in watched.shapes if shape[1] > 1] == [(3, 11)]
    assert all_of(batch, *(submit(each, SHORT) for each in prompts)) == expected  # from what was kept of them


@pytest.mark.parametrize("kind", sorted(SHAPES))
def test_families_share_chunks_or_say_that_they_do_not(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whether a family shares chunks or not, a burst gets the tokens that each of its prompts gets alone."""
    family = load(write_text_model(tmp_path_factory.mktemp(kind) / "model", model_type=kind))
    prompts = [tokens_of(length) for length in (9, 12, 8)]
    batch = family.new_batch()
    alone = []
    for each in prompts:
        alone += all_of(batch, submit(each, SHORT))
    batch.clear_prompt_cache()
    assert all_of(batch, *(submit(each, SHORT) for each in prompts)) == alone
