"""Penalties: the arithmetic that the parameters promise, for rows that come and go."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from periscope.core import GenerationParams
from periscope.engine.batch.penalties import Penalties
from periscope.engine.batch.rows import Row
from periscope.engine.batch.said_tokens import SaidTokens
from periscope.engine.batch.sampling import GREEDY

VOCAB = 6
LOGITS = np.asarray([[2.0, -1.0, 0.5, -0.25, 0.0, 4.0]], dtype=np.float32)


def a_row(row_id: int, prompt: Sequence[int], penalties: Penalties | None) -> Row:
    return Row(row_id, np.asarray(prompt), list(prompt), GenerationParams(), GREEDY, penalties)


def say(row: Row, token: int) -> None:
    """The row has got a token, and it has been read."""
    row.tokens.append(token)
    row.num_launched += 1


def expected(row: Row, logits: np.ndarray = LOGITS[0]) -> np.ndarray:
    """The same by the formulas, token by token."""
    if row.penalties is None:
        return logits
    said = row.tokens[len(row.prompt) :]
    told = logits.copy()
    for token in {token for token in row.tokens if token >= 0}:
        told[token] *= row.penalties.repetition if told[token] < 0 else 1 / row.penalties.repetition
    for token in set(said):
        told[token] -= row.penalties.frequency * said.count(token) + row.penalties.presence
    return told


def penalised(said: SaidTokens, rows: Sequence[Row]) -> np.ndarray:
    newest = mx.array([row.tokens[-1] for row in rows])
    logits = mx.array(np.repeat(LOGITS, len(rows), axis=0))
    told = np.asarray(said.penalised(rows, newest, logits))
    assert np.array_equal(logits, np.repeat(LOGITS, len(rows), axis=0))  # the input is as it was
    return told


def test_frequency_and_presence_count_the_completion_only() -> None:
    """Prompt tokens are free; each completion token costs presence once and frequency every time."""
    row, said = a_row(1, [1, 2], Penalties(frequency=0.5, presence=1.0)), SaidTokens()
    changes = []
    for token in (1, 1, 3):
        changes.append((penalised(said, [row]) - LOGITS)[0].tolist())
        say(row, token)
    changes.append((penalised(said, [row]) - LOGITS)[0].tolist())
    assert changes == [[0] * 6, [0, -1.5, 0, 0, 0, 0], [0, -2.0, 0, 0, 0, 0], [0, -2.0, 0, -1.5, 0, 0]]


def test_repetition_penalty_counts_the_prompt_and_minds_the_sign() -> None:
    """Seen tokens become less likely whether their logit is positive or negative; keys of images are no tokens."""
    row, said = a_row(1, [0, -7, 1], Penalties(repetition=2.0)), SaidTokens()
    assert penalised(said, [row]).tolist() == [[1.0, -2.0, 0.5, -0.25, 0.0, 4.0]]
    say(row, 5)
    assert penalised(said, [row]).tolist() == [[1.0, -2.0, 0.5, -0.25, 0.0, 2.0]]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_logits_keep_their_type(dtype: mx.Dtype) -> None:
    row = a_row(1, [0], Penalties(1.1, 0.5, 0.5))
    told = SaidTokens().penalised([row], mx.array([0]), mx.zeros((1, VOCAB), dtype))
    assert told.dtype == dtype


def test_neutral_settings_are_none() -> None:
    """Neutral values add nothing, so the batch keeps its fast path."""
    assert Penalties.of(GenerationParams(repetition_penalty=1.0, frequency_penalty=0.0, presence_penalty=0.0)) is None
    assert Penalties.of(GenerationParams()) is None
    logits = mx.zeros((1, VOCAB))
    assert SaidTokens().penalised([a_row(1, [0], None)], mx.array([0]), logits) is logits


PENALTIES = st.none() | st.builds(
    Penalties, st.sampled_from([1.0, 1.5]), st.sampled_from([0.0, 0.5, -0.5]), st.sampled_from([0.0, 1.0])
)
TOKENS = st.integers(0, VOCAB - 1)


@st.composite
def new_rows(draw: st.DrawFn, first_id: int) -> list[Row]:
    prompts = st.lists(TOKENS | st.just(-3), min_size=1, max_size=4)
    made = draw(st.lists(st.tuples(prompts, PENALTIES), min_size=1, max_size=3))
    return [a_row(first_id + number, *each) for number, each in enumerate(made)]


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_rows_that_come_and_go_are_punished_for_what_they_have_said(data: st.DataObject) -> None:
    """Rows join, leave, change their places, and get tokens elsewhere, as in a step that verifies drafts."""
    said, rows, num_joined = SaidTokens(), list[Row](), 0
    changes = st.sampled_from(["none", "none", "join", "leave", "shuffle", "elsewhere"])
    for change in ["join", *data.draw(st.lists(changes, min_size=3, max_size=10))]:
        match change:
            case "join":
                rows += data.draw(new_rows(num_joined))
                num_joined = max(row.id for row in rows) + 1
            case "leave" if rows:
                rows.pop(data.draw(st.integers(0, len(rows) - 1)))
            case "shuffle":
                rows = data.draw(st.permutations(rows))
            case "elsewhere" if rows:
                for token in data.draw(st.lists(TOKENS, max_size=3)):
                    say(rows[0], token)
        if rows:
            np.testing.assert_allclose(penalised(said, rows), [expected(row) for row in rows], rtol=1e-6)
        for row in rows:
            say(row, data.draw(TOKENS))
