"""The end of thinking in a batch: the same text alone, beside others, drafted for, preempted and from a warm cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import FinishReason, GenerationParams, TokenLogprob
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.structured.thinking import ThinkingRules
from periscope.engine.text.thinking_format import ThinkingFormat
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit
from tests.engine.batch.batches import prompt
from tests.engine.driving import Run, all_of, load, submit
from tests.tiny_models import write_text_model

#: The tiny model's vocabulary is bytes: it writes letters and nothing else, so no marker comes by chance.
LETTERS = tuple((token, -100.0) for token in range(258) if not 65 <= token < 91)
GREEDY = GenerationParams(temperature=0.0, max_tokens=120, logit_bias=LETTERS)
SEEDED = replace(GREEDY, temperature=1.0, seed=3, top_k=20, frequency_penalty=0.2)


def tokens_of(model: TextModel, text: str) -> tuple[int, ...]:
    return tuple(model.tokenizer.encode(text, add_special_tokens=False))


@pytest.fixture(scope="module")
def ending(model: TextModel) -> tuple[int, ...]:
    return tokens_of(model, "\n</think>\n\n")


def thinking(tokens: Sequence[int], params: GenerationParams, ending: tuple[int, ...]) -> Submit:
    """A request whose prompt has opened the thinking."""
    known = ThinkingFormat("<think>", "</think>", "", "", (ending,), (ending,))
    return replace(submit(tokens, params), thinking=ThinkingRules(known, is_open=True))


def expected(batch: TextBatch, request: Submit, budget: int, ending: tuple[int, ...]) -> list[int]:
    """What the model says up to the budget, the ending, and what it says after that prompt."""
    assert request.thinking is not None
    params = replace(request.params, thinking_budget=None)
    tokens = request.prompt.token_ids  # type: ignore[union-attr]
    (thought,) = all_of(batch, submit(tokens, replace(params, max_tokens=budget))) if budget else ([],)
    rest = replace(params, max_tokens=(params.max_tokens or 1) - budget - len(ending))
    (answer,) = all_of(batch, submit([*tokens, *thought, *ending], rest))
    return [*thought, *ending, *answer]


BUDGETS = (0, 1, 2, 3, 17, 60)


def test_thinking_ends_at_its_budget_and_the_answer_goes_on(batch: TextBatch, ending: tuple[int, ...]) -> None:
    """To the token, for rows of all budgets together and beside rows without one, which are not changed."""
    tokens = [prompt(20 + number) for number in range(len(BUDGETS))]
    free = [submit(each, GREEDY) for each in tokens[:2]]
    limited = [
        thinking(each, replace(GREEDY, thinking_budget=budget), ending)
        for each, budget in zip(tokens, BUDGETS, strict=True)
    ]
    alone = all_of(batch, free[0]) + all_of(batch, free[1])
    wanted = [expected(batch, each, budget, ending) for each, budget in zip(limited, BUDGETS, strict=True)]
    batch.clear_prompt_cache()
    assert all_of(batch, *free, *limited) == [*alone, *wanted]
    assert [tokens for each in limited for tokens in all_of(batch, each)] == wanted


def test_a_seeded_row_thinks_as_it_would_without_a_budget(batch: TextBatch, ending: tuple[int, ...]) -> None:
    """The tokens before the end are those of its seed, and after it they repeat with it."""
    request = thinking(prompt(30), replace(SEEDED, thinking_budget=25), ending)
    (free,) = all_of(batch, submit(request.prompt.token_ids, SEEDED))  # type: ignore[union-attr]
    first, second = all_of(batch, request, request)
    assert first == second
    assert (first[:25], tuple(first[25 : 25 + len(ending)])) == (free[:25], ending)
    assert len(first) == 120


@pytest.mark.parametrize("draft_seed", [0, 8], ids=["itself", "another"])
@pytest.mark.parametrize("params", [GREEDY, replace(SEEDED, frequency_penalty=0.0)], ids=["greedy", "seeded"])
def test_drafting_changes_no_token_of_it(
    tiny_text_model: Path, model: TextModel, draft_seed: int, params: GenerationParams, ending: tuple[int, ...]
) -> None:
    """A draft goes over the budget and over the ending; neither is accepted."""
    plain = replace(params, logit_bias=(), max_tokens=90)  # with a bias nothing is drafted
    folder = write_text_model(tiny_text_model.parent / f"draft-{draft_seed}", seed=draft_seed)
    drafting = load(tiny_text_model, EngineConfig(draft_model=str(folder))).new_batch()
    submits = [thinking(prompt(25), replace(plain, thinking_budget=budget), ending) for budget in BUDGETS]
    batch = model.new_batch()
    assert [tokens for each in submits for tokens in all_of(drafting, each)] == all_of(batch, *submits)
    batch.close()
    drafting.close()


def test_preempted_rows_end_their_thinking_at_the_same_place(
    tiny_text_model: Path, model: TextModel, ending: tuple[int, ...]
) -> None:
    """Before, in and after the ending: rows that were computed again have the same text."""
    row_bytes = model._budget.footprint.nbytes(768)
    small = load(tiny_text_model, EngineConfig(kv_limit_bytes=2 * row_bytes, prefill_chunk_size=64)).new_batch()
    params = replace(GREEDY, max_tokens=515)
    submits = [thinking(prompt(5), replace(params, thinking_budget=budget), ending) for budget in range(236, 260, 3)]
    plain = model.new_batch()
    wanted = all_of(plain, *submits)
    run, num_preempted = Run(small), 0
    rows = run.admit(*submits)
    while run.live:
        run.step()
        num_preempted += sum(bool(waiting.row.num_read) for waiting in small._executor.prompts)
    assert num_preempted
    assert [run.tokens[row] for row in rows] == wanted
    plain.close()
    small.close()


def test_the_answer_keeps_room_in_max_tokens(batch: TextBatch, ending: tuple[int, ...]) -> None:
    """A budget beyond the limit is cut, so that thinking alone never fills it."""
    run = Run(batch)
    params = replace(GREEDY, max_tokens=80, thinking_budget=1000)
    (row,) = run.admit(thinking(prompt(30), params, ending))
    run.to_the_end()
    num_thought = 80 - 20 - len(ending)
    assert tuple(run.tokens[row][num_thought : num_thought + len(ending)]) == ending
    assert run.last[row].finish_reason is FinishReason.LENGTH


def test_the_log_probability_of_a_forced_token_is_the_models_own(batch: TextBatch, ending: tuple[int, ...]) -> None:
    """Each token has its entry; those of the ending are as unlikely as the model finds them."""
    run = Run(batch)
    asked = thinking(prompt(30), replace(GREEDY, max_tokens=30, thinking_budget=4, logprobs=True), ending)
    (row,) = run.admit(asked)
    entries: list[TokenLogprob | None] = []
    while run.live:
        run.step()
        if len(run.tokens[row]) > len(entries):
            entries.append(run.last[row].logprob)
    assert [entry and entry.token.token_id for entry in entries] == run.tokens[row]
    assert all(entry and entry.logprob is not None and entry.logprob < 0 for entry in entries[4 : 4 + len(ending)])


@pytest.mark.parametrize("num_steps", [0, 1, 2, 9])
def test_thinking_without_a_budget_is_ended_on_command(
    batch: TextBatch, ending: tuple[int, ...], num_steps: int
) -> None:
    """At once, whether the row waits or decodes; a neighbour goes on, and so does a row that marks no thinking."""
    tokens = prompt(30)
    free_tokens, asked = all_of(batch, submit(tokens, GREEDY))[0], thinking(tokens, GREEDY, ending)
    run = Run(batch)
    told, neighbour, plain = run.admit(asked, asked, submit(tokens, GREEDY))
    for _ in range(num_steps):
        run.step()
    num_thought = len(run.tokens[told])
    batch.end_thinking(told)
    batch.end_thinking(plain)
    batch.end_thinking(10_000)
    run.to_the_end()
    place = next(at for at in range(120) if tuple(run.tokens[told][at : at + len(ending)]) == ending)
    assert num_thought <= place <= num_thought + 2
    assert run.tokens[told][:place] == free_tokens[:place]
    assert run.tokens[neighbour] == run.tokens[plain] == free_tokens
