"""Long prompts beside running rows: caches are resized and states copied out in steps, and no token changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from periscope.core import GenerationParams
from periscope.engine import EngineConfig
from periscope.engine.batch.grouping import LONG_TOKENS
from periscope.engine.batch.text_batch import TextBatch
from tests.engine.driving import Run, all_of, load, submit

CONFIG = EngineConfig(prompt_cache_bytes=64 * 2**20, prefill_chunk_size=256)
#: Never ends by itself.
ENDLESS = GenerationParams(temperature=0.0, max_tokens=400, logit_bias=((257, -100.0),))
SHORT = GenerationParams(temperature=0.0, max_tokens=8, logit_bias=((257, -100.0),))
LONG = [65 + (7 * i * i + i) % 90 for i in range(LONG_TOKENS + 300)]
OTHER = [70 + (5 * i * i + 3 * i) % 80 for i in range(LONG_TOKENS + 200)]
RUNNING = [[72, 101, 108, 108, 111], [80, 101, 114, 105]]


@pytest.fixture
def batch(tiny_text_model: Path) -> TextBatch:
    return load(tiny_text_model, CONFIG).new_batch()


def alone(model: Path, tokens: list[int], params: GenerationParams) -> list[int]:
    return all_of(load(model, CONFIG).new_batch(), submit(tokens, params))[0]


@pytest.mark.parametrize("num_running", [1, 2])
def test_tokens_are_the_same_beside_a_long_prompt(tiny_text_model: Path, batch: TextBatch, num_running: int) -> None:
    """Running rows and a long row that joins them and ends get the tokens they get alone."""
    run = Run(batch)
    running = run.admit(*(submit(tokens, ENDLESS) for tokens in RUNNING[:num_running]))
    while not all(run.tokens.values()):
        run.step()
    (long,) = run.admit(submit(LONG, SHORT))
    run.to_the_end()
    assert run.tokens[long] == alone(tiny_text_model, LONG, SHORT)
    for row, tokens in zip(running, RUNNING, strict=False):
        assert run.tokens[row] == alone(tiny_text_model, tokens, ENDLESS)


@pytest.mark.parametrize("num_steps_between", [0, 1, 20])
def test_a_long_row_s_state_is_kept_though_it_is_copied_slowly(batch: TextBatch, num_steps_between: int) -> None:
    """The next turn starts from the whole conversation, whether it arrives before, during or after the copy."""
    run = Run(batch)
    run.admit(submit(RUNNING[0], ENDLESS))
    run.step()
    (long,) = run.admit(submit(LONG, SHORT))
    while long in run.live:
        run.step()
    for _ in range(num_steps_between):
        run.step()
    whole = LONG + run.tokens[long]
    (next_turn,) = run.admit(submit([*whole, 66, 67, 68], SHORT))
    while not run.tokens[next_turn]:
        run.step()
    assert run.last[next_turn].num_cached_tokens >= len(whole) - 1


def test_two_long_prompts_and_a_cancelled_one_leave_the_others_as_they_were(
    tiny_text_model: Path, batch: TextBatch
) -> None:
    """A long prompt that is cancelled while it is prefilled changes nothing for the others or the next long prompt."""
    run = Run(batch)
    (running,) = run.admit(submit(RUNNING[0], ENDLESS))
    run.step()
    (removed,) = run.admit(submit(OTHER, SHORT))
    for _ in range(3):
        run.step()
    run.remove(removed)
    first, second = run.admit(submit(LONG, SHORT), submit(OTHER, SHORT))
    run.to_the_end()
    assert run.tokens[first] == alone(tiny_text_model, LONG, SHORT)
    assert run.tokens[second] == alone(tiny_text_model, OTHER, SHORT)
    assert run.tokens[running] == alone(tiny_text_model, RUNNING[0], ENDLESS)


def test_the_running_row_may_end_while_a_long_one_is_copied_out(tiny_text_model: Path, batch: TextBatch) -> None:
    """When no row is left, the state is handed over at once, and the batch can be used again."""
    run = Run(batch)
    (running,) = run.admit(submit(RUNNING[0], ENDLESS))
    run.step()
    (long,) = run.admit(submit(LONG, SHORT))
    while long in run.live:
        run.step()
    run.remove(running)
    (again,) = run.admit(submit([*LONG, *run.tokens[long], 66], SHORT))
    run.to_the_end()
    assert run.last[long].error is None
    assert run.tokens[again] == alone(tiny_text_model, [*LONG, *run.tokens[long], 66], SHORT)
