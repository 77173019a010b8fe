"""Sampling: the arithmetic that the parameters promise."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.core import GenerationParams
from periscope.engine.batch.sampling import RowSampling, sample

LOGITS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


def ints(array: mx.array) -> list[int]:
    return cast("list[int]", array.tolist())


def drawn(params: GenerationParams, *, times: int) -> set[int]:
    """The tokens that a row of these params gets at its first positions."""
    sampling = RowSampling.of(params, vocab_size=4)
    lines = mx.concatenate([LOGITS] * times)
    return set(ints(sample(lines, [(sampling, position) for position in range(times)])))


@pytest.mark.parametrize(
    "params",
    [
        GenerationParams(temperature=0.0),
        GenerationParams(temperature=1.0, top_p=0.0),
        GenerationParams(temperature=1.0, top_k=1),
        GenerationParams(temperature=1.0, min_p=1.0),
        GenerationParams(temperature=1.0, top_k=1, seed=5),
        GenerationParams(temperature=1.0, top_p=0.4, seed=5),
        GenerationParams(temperature=1.0, min_p=0.9, seed=5),
    ],
)
def test_settings_that_leave_one_token_are_greedy(params: GenerationParams) -> None:
    """Each truncation, alone, can narrow the choice to the likeliest token."""
    assert drawn(params, times=50) == {0}


def test_a_top_k_beyond_the_vocabulary_is_off() -> None:
    """top_k larger than the vocabulary keeps every token instead of failing."""
    assert drawn(GenerationParams(temperature=2.0, top_k=1000, seed=3), times=400) == {0, 1, 2, 3}


def test_sampling_follows_the_probabilities() -> None:
    """At temperature 1 tokens come as often as the model finds them likely."""
    sampling = RowSampling.of(GenerationParams(temperature=1.0, seed=11), vocab_size=4)
    tokens = ints(sample(mx.concatenate([LOGITS] * 4000), [(sampling, position) for position in range(4000)]))
    shares = [tokens.count(token) / 4000 for token in range(4)]
    assert shares == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)


def passing(probabilities: list[float], top_k: int | None, top_p: float | None, min_p: float | None) -> set[int]:
    """The tokens that pass each of the filters, by the probabilities that the model gave."""
    ranked = sorted(range(len(probabilities)), key=lambda token: -probabilities[token])
    kept = set(ranked[: top_k or None])
    if top_p is not None:
        kept &= {token for at, token in enumerate(ranked) if sum(probabilities[each] for each in ranked[:at]) < top_p}
    return {token for token in kept if probabilities[token] >= (min_p or 0.0) * probabilities[ranked[0]]}


@given(
    st.permutations([0.22, 0.19, 0.17, 0.12, 0.1, 0.08, 0.07, 0.05]),
    st.sampled_from([None, 1, 3, 7, 8, 100]),
    st.sampled_from([None, 0.25, 0.6, 0.96]),
    st.sampled_from([None, 0.3, 0.5]),
)
@settings(max_examples=60, deadline=None)
def test_a_token_comes_if_it_passes_every_filter(
    probabilities: list[float], top_k: int | None, top_p: float | None, min_p: float | None
) -> None:
    """No other ever comes, and each that passes does, as often as it is drawn here."""
    params = GenerationParams(temperature=2.0, top_k=top_k, top_p=top_p, min_p=min_p, seed=7)
    sampling = RowSampling.of(params, vocab_size=8)
    lines = mx.log(mx.array([probabilities] * 400))
    came = set(ints(sample(lines, [(sampling, position) for position in range(400)])))
    assert came == passing(probabilities, top_k, top_p, min_p)


def test_among_the_likeliest_tokens_come_by_their_probabilities() -> None:
    """What top_k leaves is drawn in the proportions that the model gave."""
    sampling = RowSampling.of(GenerationParams(temperature=1.0, top_k=2, seed=11), vocab_size=4)
    tokens = ints(sample(mx.concatenate([LOGITS] * 4000), [(sampling, position) for position in range(4000)]))
    assert tokens.count(0) / 4000 == pytest.approx(0.5 / 0.8, abs=0.04)


PARAMS = st.builds(
    GenerationParams,
    temperature=st.sampled_from([0.0, 0.5, 1.0, 2.0]),
    top_p=st.sampled_from([None, 0.3, 0.9]),
    top_k=st.sampled_from([None, 2, 40]),
    min_p=st.sampled_from([None, 0.1]),
    seed=st.integers(-(2**63), 2**64 - 1),
)


@given(st.lists(st.tuples(PARAMS, st.integers(0, 10_000)), min_size=1, max_size=6), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_a_row_s_token_does_not_depend_on_its_neighbours(rows: list[tuple[GenerationParams, int]], noise: int) -> None:
    """A row's token depends on its seed and position, not on the rows beside it."""
    logits = mx.random.normal((len(rows), 64), key=mx.random.key(noise))
    draws = [(RowSampling.of(params, vocab_size=64), position) for params, position in rows]
    together = sample(logits, draws).tolist()
    assert together == [sample(logits[i : i + 1], [draw]).item() for i, draw in enumerate(draws)]


def test_without_a_seed_two_rows_differ() -> None:
    """Two rows without a seed get different tokens."""
    one, other = (RowSampling.of(GenerationParams(temperature=1.0), vocab_size=4) for _ in range(2))
    assert one.seed != other.seed


def test_keys_of_neighbouring_seeds_and_positions_are_all_different() -> None:
    """Seed 1's second token is not drawn with seed 2's first key."""
    samplings = [RowSampling.of(GenerationParams(temperature=1.0, seed=seed), vocab_size=4) for seed in range(50)]
    assert len({sampling.key(position) for sampling in samplings for position in range(50)}) == 2500
