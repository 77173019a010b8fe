"""Speculative decoding changes the speed and no token."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import FinishReason, GenerationParams
from periscope.engine.config import EngineConfig
from periscope.errors import ModelLoadError
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import write_text_model

RANDOM = random.Random(9)
PROMPTS = [[RANDOM.randrange(250) for _ in range(length)] for length in (1, 7, 60, 180)]
GREEDY = GenerationParams(temperature=0.0, max_tokens=24)
SEEDED = GenerationParams(temperature=1.0, seed=4, top_k=20, max_tokens=24)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A draft model with the same vocabulary and other weights, whose drafts are mostly wrong."""
    return write_text_model(tmp_path_factory.mktemp("draft") / "draft", seed=8)


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
@pytest.mark.parametrize("draft", ["itself", "another"])
def test_drafting_changes_no_token(
    tiny_text_model: Path, other_model: Path, draft: str, params: GenerationParams
) -> None:
    """With a perfect and a poor draft model, alone, batched and from a warm cache, the tokens are the same."""
    plain = load(tiny_text_model).new_batch()
    drafting = load(
        tiny_text_model, EngineConfig(draft_model=str(tiny_text_model if draft == "itself" else other_model))
    ).new_batch()
    submits = [submit(prompt, params) for prompt in PROMPTS]
    expected = all_of(plain, *submits)
    assert [tokens for each in submits for tokens in all_of(drafting, each)] == expected
    assert all_of(drafting, *submits) == expected
    assert [tokens for each in submits for tokens in all_of(drafting, each)] == expected


def test_accepted_drafts_save_steps(tiny_text_model: Path) -> None:
    """A draft model that is always right gives several tokens a step."""
    drafting = Run(load(tiny_text_model, EngineConfig(draft_model=str(tiny_text_model))).new_batch())
    (row,) = drafting.admit(submit(PROMPTS[2], GREEDY))
    drafting.to_the_end()
    assert len(drafting.tokens[row]) == 24
    assert drafting.num_steps <= 8


def test_a_stop_token_among_accepted_drafts_ends_the_row(tiny_text_model: Path) -> None:
    """Nothing after it is generated, as without a draft model."""
    plain = load(tiny_text_model).new_batch()
    drafting = load(tiny_text_model, EngineConfig(draft_model=str(tiny_text_model))).new_batch()
    (free,) = all_of(plain, submit(PROMPTS[2], GREEDY))
    for stop in free[:6]:
        each = submit(PROMPTS[2], replace(GREEDY, stop_token_ids=(stop,)))
        assert all_of(drafting, each) == all_of(plain, each) == [free[: free.index(stop) + 1]]


@pytest.mark.parametrize("max_tokens", [1, 2, 3, 4, 5, 6, 7])
def test_a_limit_is_kept_to_the_token(tiny_text_model: Path, max_tokens: int) -> None:
    """No draft goes beyond max_tokens."""
    batch = load(tiny_text_model, EngineConfig(draft_model=str(tiny_text_model))).new_batch()
    run = Run(batch)
    (row,) = run.admit(submit(PROMPTS[1], GenerationParams(temperature=0.0, max_tokens=max_tokens)))
    run.to_the_end()
    assert len(run.tokens[row]) == max_tokens
    assert run.last[row].finish_reason is FinishReason.LENGTH


def test_the_state_after_speculative_steps_is_right(tiny_text_model: Path) -> None:
    """The state of a row that was drafted for can be continued like any other."""
    plain = load(tiny_text_model).new_batch()
    drafting = load(tiny_text_model, EngineConfig(draft_model=str(tiny_text_model))).new_batch()
    for num_steps in range(1, 6):
        run = Run(drafting)
        (row,) = run.admit(submit(PROMPTS[3], GREEDY))
        for _ in range(num_steps):
            run.step()
        run.remove(row)
        go_on = submit([*PROMPTS[3], *run.tokens[row], 5, 6], GREEDY)
        assert all_of(drafting, go_on) == all_of(plain, go_on)


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_text_model: Path) -> None:
    """A draft model with other tokens is an error at load that says what to choose instead."""
    from periscope.demo import EMBEDDED_MODELS

    with pytest.raises(ModelLoadError, match="another vocabulary"):
        load(tiny_text_model, EngineConfig(draft_model=str(EMBEDDED_MODELS["embedded:text"])))


def test_a_missing_draft_model_is_an_error_with_the_fix(tiny_text_model: Path) -> None:
    """A missing draft model is not downloaded; the error says how to fetch it."""
    with pytest.raises(ModelLoadError, match="no folder"):
        load(tiny_text_model, EngineConfig(draft_model="/nowhere/at/all"))
