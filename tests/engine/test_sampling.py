"""Samplers and penalties: the arithmetic the parameters promise."""

from __future__ import annotations

import mlx.core as mx
import pytest

from periscope.core import GenerationParams
from periscope.engine.sampling import CompletionPenalty, RepetitionPenalty, logits_processors_for, sampler_for

LOGPROBS = mx.log(mx.array([[0.5, 0.3, 0.15, 0.05]]))


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
    sampler = sampler_for(params, vocab_size=4)
    assert {sampler(LOGPROBS).item() for _ in range(20)} == {0}


def test_equal_settings_share_a_sampler_and_seeds_do_not() -> None:
    """Rows of one sampler object are sampled in one call; a seed's key is its row's own."""
    plain = GenerationParams(temperature=0.7, top_p=0.9)
    assert sampler_for(plain, vocab_size=4) is sampler_for(plain, vocab_size=4)
    seeded = GenerationParams(temperature=0.7, seed=1)
    assert sampler_for(seeded, vocab_size=4) is not sampler_for(seeded, vocab_size=4)


def test_a_top_k_beyond_the_vocabulary_is_off() -> None:
    """top_k larger than the vocabulary keeps every token instead of failing."""
    for seed in (None, 3):
        sampler = sampler_for(GenerationParams(temperature=2.0, top_k=1000, seed=seed), vocab_size=4)
        assert {sampler(LOGPROBS).item() for _ in range(400)} == {0, 1, 2, 3}


def test_frequency_and_presence_count_the_completion_only() -> None:
    """Prompt tokens are free; each completion token costs presence once and frequency every time."""
    penalty = CompletionPenalty(frequency=0.5, presence=1.0)
    logits = mx.zeros((1, 4))
    prompt = mx.array([0, 0, 3])
    assert penalty(prompt, logits).tolist() == [[0.0, 0.0, 0.0, 0.0]]
    assert penalty(mx.array([0, 0, 3, 1]), logits).tolist() == [[0.0, -1.5, 0.0, 0.0]]
    assert penalty(mx.array([0, 0, 3, 1, 1]), logits).tolist() == [[0.0, -2.0, 0.0, 0.0]]


def test_repetition_penalty_counts_the_prompt_and_minds_the_sign() -> None:
    """Seen tokens become less likely whether their logit is positive or negative."""
    penalty = RepetitionPenalty(2.0)
    logits = mx.array([[1.0, -1.0, 1.0, -1.0]])
    assert penalty(mx.array([0, 1]), logits).tolist() == [[0.5, -2.0, 1.0, -1.0]]
    assert penalty(mx.array([0, 1, 2]), logits).tolist() == [[0.5, -2.0, 0.5, -1.0]]


def test_neutral_settings_cost_nothing() -> None:
    """Neutral values add no processor, so the batch keeps its fast path."""
    neutral = GenerationParams(repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0)
    assert logits_processors_for(neutral) == []
