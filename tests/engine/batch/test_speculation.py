"""Speculative decoding changes the speed and no token."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from periscope.core import FinishReason, GenerationParams
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.config import EngineConfig
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import Submit, TokenPrompt
from periscope.engine.worker.contracts import Sampled
from periscope.errors import ModelLoadError
from tests.engine.batch.batches import grammar_of
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


def test_a_prediction_that_is_not_drafted_is_told(tiny_text_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The draft model drafts in its place, and the log has that instead of silence."""
    caplog.set_level("INFO")
    batch = load(tiny_text_model, EngineConfig(draft_model=str(tiny_text_model))).new_batch()
    predicted = replace(submit(PROMPTS[1], GREEDY), prompt=TokenPrompt(tuple(PROMPTS[1]), prediction=(1, 2, 3)))
    (tokens,) = all_of(batch, predicted)
    assert (len(tokens), "`prediction` of a request is not used" in caplog.text) == (24, True)


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


#: Each says everything twice, so that its completion finds something to repeat.
REPEATING = [prompt * 2 for prompt in PROMPTS]
LONG = GenerationParams(temperature=0.0, max_tokens=120)
KINDS = {
    "greedy": LONG,
    "seeded": replace(LONG, temperature=1.0, seed=4, top_k=3),
    "repetition penalty": replace(LONG, repetition_penalty=1.05),
    "frequency penalty": replace(LONG, frequency_penalty=0.02),
    "logprobs": replace(LONG, logprobs=True, top_logprobs=2),
    "min tokens": replace(LONG, min_tokens=90),
}


@pytest.fixture(scope="module")
def looking_up(tiny_text_model: Path) -> TextModel:
    return load(tiny_text_model, EngineConfig(prompt_lookup=True))


@pytest.mark.parametrize("params", KINDS.values(), ids=KINDS)
def test_looking_up_changes_no_token(tiny_text_model: Path, looking_up: TextModel, params: GenerationParams) -> None:
    """Alone, beside each other, and from a warm cache; penalties and log-probabilities are those of each token."""
    plain = load(tiny_text_model).new_batch()
    submits = [submit(prompt, params) for prompt in REPEATING]
    expected = [results_of(plain, each) for each in submits]
    drafting = looking_up.new_batch()
    for _ in range(2):
        assert [results_of(drafting, each) for each in submits] == expected
    assert all_of(drafting, *submits) == [[token for token, _ in each] for each in expected]
    drafting.close()
    plain.close()


def results_of(batch: TextBatch, request: Submit) -> list[tuple[int, object]]:
    """The tokens of a row that is alone, with the rounded log-probabilities of those that tell them."""
    row = batch.admit(request)
    results: list[Sampled] = []
    while not results or results[-1].finish_reason is None:
        results += [sampled for sampled in batch.step() if sampled.row == row]
    return [(each.token_id, each.logprob and round(each.logprob.logprob or 0.0, 3)) for each in results]


@pytest.mark.parametrize("num_rows", [1, 4])
def test_what_repeats_itself_takes_fewer_steps(tiny_text_model: Path, looking_up: TextModel, num_rows: int) -> None:
    """Rows that fall into a loop get several tokens a step, alone and beside each other, and say how many."""
    prompts = [PROMPTS[2] * (2 + number) for number in range(num_rows)]
    submits = [submit(prompt, replace(LONG, max_tokens=300)) for prompt in prompts]
    plain, drafting = Run(load(tiny_text_model).new_batch()), Run(looking_up.new_batch())
    for run in (plain, drafting):
        run.admit(*submits)
        run.to_the_end()
    assert drafting.tokens == plain.tokens
    assert drafting.num_steps < plain.num_steps
    last = drafting.last.values()
    assert all(each.num_accepted for each in last)
    assert not any(each.num_accepted or each.num_rejected for each in plain.last.values())
    num_tokens = sum(map(len, drafting.tokens.values()))
    assert sum(each.num_accepted for each in last) >= num_tokens - num_rows * drafting.num_steps


def test_a_grammar_and_a_draft_agree(tiny_text_model: Path, looking_up: TextModel) -> None:
    """A list of equal words in JSON is drafted, token by token through the grammar, and is what it was."""
    plain = load(tiny_text_model)
    schema = {"type": "array", "items": {"enum": ["the same words", "the same world"]}, "minItems": 8, "maxItems": 8}
    grammar = grammar_of(plain, schema)
    requests = [
        replace(submit(prompt, replace(KINDS[kind], max_tokens=250)), grammar=grammar)
        for prompt, kind in zip(REPEATING, ("greedy", "seeded", "repetition penalty", "logprobs"), strict=True)
    ]
    batch, drafting = plain.new_batch(), Run(looking_up.new_batch())
    expected = all_of(batch, *requests)
    assert all(json.loads(plain.tokenizer.decode(tokens[:-1])) for tokens in expected)
    for request, tokens in zip(requests, expected, strict=True):
        (row,) = drafting.admit(request)
        drafting.to_the_end()
        assert drafting.tokens[row] == tokens
        assert drafting.last[row].num_accepted
    rows = drafting.admit(*requests)
    drafting.to_the_end()
    assert [drafting.tokens[row] for row in rows] == expected


def test_rows_come_and_go_while_others_are_drafted_for(tiny_text_model: Path, looking_up: TextModel) -> None:
    """Rows that end, are removed or join in the middle change nothing in the others."""
    plain, drafting = load(tiny_text_model).new_batch(), looking_up.new_batch()
    params = [replace(LONG, max_tokens=length) for length in (33, 120, 77, 120)]
    submits = [submit(prompt, each) for prompt, each in zip(REPEATING, params, strict=True)]
    expected = [tokens for each in submits for tokens in all_of(plain, each)]
    run = Run(drafting)
    rows = run.admit(*submits[:2])
    while len(run.tokens[rows[1]]) < 20:
        run.step()
    rows += run.admit(submits[2])
    (gone,) = run.admit(submit(PROMPTS[3], LONG))
    while len(run.tokens[gone]) < 9:
        run.step()
    run.remove(gone)
    rows += run.admit(submits[3])
    run.to_the_end()
    assert [run.tokens[row] for row in rows] == expected
    go_on = submit([*PROMPTS[3], *run.tokens[gone][:8], 5, 6], GREEDY)
    assert all_of(drafting, go_on) == all_of(plain, go_on)


def test_preempted_rows_are_drafted_for_again(tiny_text_model: Path, looking_up: TextModel) -> None:
    """Rows that gave up their memory have the same text, and what was looked up of them stays known."""
    row_bytes = looking_up._budget.footprint.nbytes(768)
    config = EngineConfig(prompt_lookup=True, kv_limit_bytes=2 * row_bytes, prefill_chunk_size=64)
    small, plain = load(tiny_text_model, config).new_batch(), load(tiny_text_model).new_batch()
    params = replace(LONG, max_tokens=360, ignore_eos=True)  # from the second block of 256 tokens to the third
    submits = [submit([*PROMPTS[3], *prompt], params) for prompt in PROMPTS[:3]]
    expected = all_of(plain, *submits)
    run = Run(small)
    rows = run.admit(*submits)
    run.to_the_end()
    assert small.num_preemptions
    assert [run.tokens[row] for row in rows] == expected
    assert sum(run.last[row].num_accepted for row in rows)


def test_a_prediction_is_drafted_where_look_up_is_off(tiny_text_model: Path) -> None:
    """What the client expects is drafted from the first token on, wrong or right, and changes no token."""
    batch = load(tiny_text_model).new_batch()
    (said,) = all_of(batch, submit(PROMPTS[3], LONG))
    for prediction, least in ((said, 100), ([*said[:50], 3, *said[51:]], 90), (PROMPTS[2], 0)):
        run = Run(batch)
        request = submit(PROMPTS[3], LONG)
        (row,) = run.admit(replace(request, prompt=TokenPrompt(tuple(PROMPTS[3]), prediction=tuple(prediction))))
        run.to_the_end()
        assert run.tokens[row] == said
        assert run.last[row].num_accepted >= least


def test_a_draft_model_of_another_vocabulary_is_refused(tiny_text_model: Path) -> None:
    """A draft model with other tokens is an error at load that says what to choose instead."""
    from periscope.demo import EMBEDDED_MODELS

    with pytest.raises(ModelLoadError, match="another vocabulary"):
        load(tiny_text_model, EngineConfig(draft_model=str(EMBEDDED_MODELS["embedded:text"])))


def test_a_missing_draft_model_is_an_error_with_the_fix(tiny_text_model: Path) -> None:
    """A missing draft model is not downloaded; the error says how to fetch it."""
    with pytest.raises(ModelLoadError, match="no folder"):
        load(tiny_text_model, EngineConfig(draft_model="/nowhere/at/all"))
