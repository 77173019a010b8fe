"""Biases: the arithmetic that the parameters promise."""

from __future__ import annotations

from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from periscope.core import GenerationParams
from periscope.engine.batch.token_bias import TokenBias, biases_for, with_biases


def lines(array: mx.array) -> list[list[float]]:
    return cast("list[list[float]]", array.tolist())


def test_biases_move_the_named_tokens_of_their_rows_only() -> None:
    """-100 rules a token out, +100 makes it certain; two biases of one token add up, and the others stay."""
    first, second = TokenBias.of([(0, -100.0), (3, 1.5)]), TokenBias.of([(3, 100.0)])
    logits = mx.zeros((3, 4))
    assert lines(with_biases(logits, [(0, first), (2, first), (2, second)])) == [
        [-100.0, 0.0, 0.0, 1.5],
        [0.0, 0.0, 0.0, 0.0],
        [-100.0, 0.0, 0.0, 101.5],
    ]
    assert lines(logits) == [[0.0] * 4] * 3


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_withheld_ends_come_only_where_nothing_else_may(dtype: mx.Dtype) -> None:
    """In every type that logits have; a mask that leaves only the end wins."""
    likely = mx.array([[0.0, 9.0, 8.0, 1.0]]).astype(dtype)
    withheld = with_biases(likely, [(0, TokenBias.withholding({1, 2}))])
    assert withheld.dtype == dtype
    assert mx.argmax(withheld).item() == 3
    only_the_end = mx.where(mx.array([[False, True, False, False]]), withheld, -mx.inf)
    assert mx.argmax(only_the_end).item() == 1


def test_ends_are_withheld_for_as_long_as_asked_for() -> None:
    """`min_tokens` from all ends, those of the request, too; `ignore_eos` from the model's, and for good."""
    (least,) = biases_for(GenerationParams(min_tokens=2, stop_token_ids=(7,)), {3})
    assert [least.acts_on(position) for position in range(4)] == [True, True, False, False]
    assert np.array_equal(least.token_ids, [3, 7])
    ignored, least = biases_for(GenerationParams(ignore_eos=True, min_tokens=2, stop_token_ids=(7,)), {3})
    assert ignored.acts_on(10**6)
    assert (list(ignored.token_ids), list(least.token_ids)) == ([3], [7])


def test_neutral_settings_cost_nothing() -> None:
    """Without a bias, or an end to withhold, the batch keeps its fast path."""
    assert biases_for(GenerationParams(min_tokens=3, ignore_eos=True)) == ()
    assert biases_for(GenerationParams(), {3}) == ()
