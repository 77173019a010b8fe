"""TextBatch on a real (tiny) model: exact tokens, shared prefixes, bounded memory, contained failures."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from periscope.core import FinishReason, GenerationParams
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.text_model import TextModel
from periscope.engine.worker.commands import ImagePrompt
from periscope.errors import InvalidRequest
from tests.engine.batch.batches import Unreliable, batch_over, grammar_of, prompt
from tests.engine.driving import GREEDY, NOBODY, Run, all_of, submit

SEEDED = GenerationParams(temperature=1.0, seed=3, top_k=30, max_tokens=16, frequency_penalty=0.3)


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_alone_in_a_batch_and_from_a_warm_cache_a_request_gets_the_same(
    batch: TextBatch, params: GenerationParams
) -> None:
    """Neither other rows nor a kept state change a token."""
    submits = [submit(prompt(length), params) for length in (1, 2, 15, 40, 64, 65, 130, 200)] * 2
    together = all_of(batch, *submits)
    warm = all_of(batch, *submits)
    batch.clear_prompt_cache()
    alone = []
    for each in submits:
        alone += all_of(batch, each)
        batch.clear_prompt_cache()
    assert together == alone
    assert warm == alone


#: The tiny models' end token, made certain.
ENDS = GenerationParams(temperature=0.0, max_tokens=12, logit_bias=((257, 100.0),))


def test_each_request_ends_at_tokens_of_its_own(batch: TextBatch) -> None:
    """Rows beside each other stop at different tokens, or go on past what stops the others."""
    tokens = prompt(40)
    (free,) = all_of(batch, submit(tokens))
    stops = [free[3], free[7], 257]
    run = Run(batch)
    rows = run.admit(*(submit(tokens, replace(GREEDY, stop_token_ids=(stop,))) for stop in stops))
    run.to_the_end()
    for row, stop in zip(rows, stops, strict=True):
        assert run.tokens[row] == free[: free.index(stop) + 1] if stop in free else free
        reason = FinishReason.STOP if stop in free else FinishReason.LENGTH
        assert (run.last[row].finish_reason, run.last[row].is_eos) == (reason, stop in free)


def test_no_end_comes_before_min_tokens(batch: TextBatch) -> None:
    """A model that wants to end at once ends at the first token after `min_tokens`, or with `ignore_eos` at the limit.

    A stop token of the request is withheld by `min_tokens` and not by `ignore_eos`.
    """
    wanted = {
        1: ENDS,
        6: replace(ENDS, min_tokens=5),
        12: replace(ENDS, ignore_eos=True),
        3: replace(ENDS, ignore_eos=True, min_tokens=2, stop_token_ids=(7,), logit_bias=((257, 100.0), (7, 99.0))),
    }
    submits = [submit(prompt(9), params) for params in wanted.values()]
    together = all_of(batch, *submits)
    assert [len(tokens) for tokens in together] == list(wanted)
    assert [tokens[-1] for tokens in together][:2] == [257, 257]
    assert not any(257 in tokens[:-1] for tokens in together)
    assert together[3][-1] == 7
    assert 7 not in together[3][:-1]
    batch.clear_prompt_cache()
    assert [tokens for each in submits for tokens in all_of(batch, each)] == together


def test_a_stop_token_outside_of_the_vocabulary_is_refused(batch: TextBatch) -> None:
    """Before anything is computed, with the field and the bounds."""
    with pytest.raises(InvalidRequest, match="`stop_token_ids` names token 258; this model has 0 to 257"):
        batch.admit(submit(prompt(4), replace(GREEDY, stop_token_ids=(258,))))


def test_a_growing_conversation_computes_only_what_is_new(batch: TextBatch) -> None:
    """Each turn starts from all of the turn before, its answer included."""
    history, reason = prompt(50), None
    for turn in range(6):
        run = Run(batch)
        (row,) = run.admit(submit(history))
        run.to_the_end()
        # All but the newest twenty tokens, and the last token of an answer that was cut off: no pass was run on it.
        was_known = 0 if turn == 0 else len(history) - 20 - (reason is FinishReason.LENGTH)
        assert run.last[row].num_cached_tokens == was_known
        reason = run.last[row].finish_reason
        history += [*run.tokens[row], *prompt(20)]


def test_an_exact_repeat_computes_one_token(batch: TextBatch) -> None:
    """A repeated prompt starts from its own state and gets the same tokens."""
    tokens = prompt(100)
    first = all_of(batch, submit(tokens))
    run = Run(batch)
    (row,) = run.admit(submit(tokens))
    run.to_the_end()
    assert run.last[row].num_cached_tokens == 99
    assert [run.tokens[row]] == first


def test_requests_with_a_common_prefix_prefill_it_once(model: TextModel, batch: TextBatch) -> None:
    """Of five requests with the same long prefix, one prefills it and the others copy it, even with no cache."""
    shared = prompt(192)
    submits = [submit([*shared, number]) for number in range(5)]
    for cache_bytes in (0, 2**20):
        run = Run(batch_over(model, cache_bytes=cache_bytes))
        rows = run.admit(*submits)
        run.to_the_end()
        assert [run.last[row].num_cached_tokens for row in rows] == [0, 192, 192, 192, 192]
        assert [run.tokens[row] for row in rows] == [tokens for each in submits for tokens in all_of(batch, each)]
        batch.clear_prompt_cache()


def test_a_cancelled_request_leaves_its_state(batch: TextBatch) -> None:
    """The state of a prompt that was cancelled halfway is kept for the next request."""
    tokens = prompt(200)
    run = Run(batch)
    (row,) = run.admit(submit(tokens))
    run.step()
    run.remove(row)
    (again,) = run.admit(submit(tokens))
    run.to_the_end()
    assert run.last[again].num_cached_tokens == 64


def test_a_row_can_be_removed_at_any_moment(batch: TextBatch) -> None:
    """A row is removed while waiting, prefilling, just joined or decoding, and the others get the same tokens."""
    others = [submit(prompt(60)), submit(prompt(130))]
    expected = all_of(batch, *others)
    leaver = submit(prompt(150), GenerationParams(temperature=0.0, max_tokens=100))
    for num_steps in range(14):
        batch.clear_prompt_cache()
        run = Run(batch)
        (removed,) = run.admit(leaver)
        rows = run.admit(*others)
        for _ in range(num_steps):
            run.step()
        run.remove(removed)
        run.to_the_end()
        assert [run.tokens[row] for row in rows] == expected


def test_short_prompts_get_their_first_token_during_a_long_prefill(batch: TextBatch) -> None:
    """A request of 50 tokens behind one of 1,900 starts within twenty steps of the stream that runs."""
    run = Run(batch)
    (running,) = run.admit(submit(prompt(10), GenerationParams(temperature=0.0, max_tokens=400)))
    for _ in range(8):
        run.step()
    (long,) = run.admit(submit(prompt(1900), GenerationParams(temperature=0.0, max_tokens=2)))
    run.step()
    (short,) = run.admit(submit(prompt(50)))
    before = len(run.tokens[running])
    while not run.tokens[short]:
        run.step()
    assert len(run.tokens[running]) - before <= 20
    assert not run.tokens[long]
    run.remove(running)
    run.to_the_end()
    assert len(run.tokens[long]) == 2


def test_a_running_stream_gets_a_token_with_every_step_of_a_long_prefill(batch: TextBatch) -> None:
    """A running stream gets a token between any two chunks of a long prompt."""
    run = Run(batch)
    (running,) = run.admit(submit(prompt(10), GenerationParams(temperature=0.0, max_tokens=400)))
    for _ in range(8):
        run.step()
    (long,) = run.admit(submit(prompt(1500)))
    while not run.tokens[long]:
        before = len(run.tokens[running])
        run.step()
        assert len(run.tokens[running]) > before


def test_no_more_rows_run_at_once_than_allowed(model: TextModel) -> None:
    """Requests beyond max_rows wait, and all are served."""
    batch = batch_over(model, max_rows=3)
    run = Run(batch)
    run.admit(*(submit(prompt(20)) for _ in range(8)))
    while run.live:
        run.step()
        assert len(batch._executor.decoding) + sum(p.caches is not None for p in batch._executor.prompts) <= 3
    assert all(len(tokens) == 16 for tokens in run.tokens.values())


def test_an_error_in_prefill_fails_that_prompt_alone(model: TextModel) -> None:
    """When the prefill of a prompt raises, its request fails, and running rows and waiting prompts go on."""
    unreliable = Unreliable(model._model)
    batch = batch_over(model, unreliable)
    good = [submit(prompt(30)), submit(prompt(90))]
    expected = all_of(batch, *good)
    unreliable.poison = 255
    run = Run(batch)
    (first,) = run.admit(good[0])
    run.step()
    (bad,) = run.admit(submit([255, *prompt(100)]))
    (second,) = run.admit(good[1])
    run.to_the_end()
    assert isinstance(run.last[bad].error, RuntimeError)
    assert run.last[bad].is_model_failure
    assert [run.tokens[first], run.tokens[second]] == expected


def test_an_error_in_a_decode_step_fails_its_rows_and_no_others(model: TextModel) -> None:
    """The rows of the failed step fail; prefilling prompts and later requests are served."""
    unreliable = Unreliable(model._model)
    batch = batch_over(model, unreliable)
    later = submit(prompt(150))
    (expected,) = all_of(batch, later)
    run = Run(batch)
    (doomed,) = run.admit(submit([*prompt(20), 255]))  # the last token of a prompt is read by the decode step
    unreliable.poison = 255
    (prefilling,) = run.admit(later)
    run.to_the_end()
    assert isinstance(run.last[doomed].error, RuntimeError)
    assert run.tokens[prefilling] == expected


def test_a_row_whose_last_token_is_in_flight_is_told_when_the_next_step_fails(model: TextModel) -> None:
    """A row that was not part of the failed forward pass gets its last token; its neighbour fails."""
    unreliable = Unreliable(model._model)
    batch = batch_over(model, unreliable)
    tokens = random.Random(8).choices(range(250), k=40)
    short = submit(tokens, GenerationParams(temperature=0.0, max_tokens=6))
    (expected,) = all_of(batch, short)
    run = Run(batch)
    ending, going_on = run.admit(short, submit(tokens[::-1]))
    while len(run.tokens[ending]) < 5:
        run.step()
    unreliable.is_down = True
    run.step()
    assert not run.live
    assert run.tokens[ending] == expected
    assert run.last[ending].finish_reason is FinishReason.LENGTH
    assert isinstance(run.last[going_on].error, RuntimeError)


def test_logprobs_are_the_model_s_own_and_come_with_alternatives(batch: TextBatch) -> None:
    """Greedy tokens lead their ranked alternatives; a row that did not ask for logprobs gets none."""
    tokens = prompt(40)
    plain = GenerationParams(temperature=0.0, max_tokens=6, logprobs=True, top_logprobs=3)
    run = Run(batch)
    asked, silent = run.admit(submit(tokens, plain), submit(tokens))
    while not (run.tokens[asked] and run.tokens[silent]):
        run.step()
    first = run.last[asked].logprob
    assert first is not None
    assert first.top[0] == (first.token, first.logprob)
    assert [value for _, value in first.top] == sorted((value for _, value in first.top), reverse=True)
    assert len(first.top) == 3
    assert run.last[silent].logprob is None
    run.to_the_end()


def test_a_grammar_leaves_logprobs_as_the_model_has_them(model: TextModel, batch: TextBatch) -> None:
    """The alternatives of a constrained token are those of a free one, and its own need not be among them."""
    params = GenerationParams(temperature=0.0, max_tokens=1, logprobs=True, top_logprobs=20)
    free = submit(prompt(40), params)
    constrained = replace(free, grammar=grammar_of(model, {"type": "object"}))
    run = Run(batch)
    rows = run.admit(free, constrained)
    run.to_the_end()
    of_free, of_constrained = (run.last[row].logprob for row in rows)
    assert of_free is not None
    assert of_constrained is not None
    assert of_constrained.top == of_free.top
    assert of_constrained.token.text == "{"
    assert of_free.logprob is not None
    assert of_constrained.logprob is not None
    assert of_constrained.logprob < of_free.logprob < 0


def test_a_biased_token_wins_or_never_comes(batch: TextBatch) -> None:
    """A logit_bias of 100 forces a token and -100 bans it, as OpenAI documents."""
    tokens = prompt(10)
    (free,) = all_of(batch, submit(tokens))
    (forced,) = all_of(batch, submit(tokens, GenerationParams(temperature=0.0, max_tokens=4, logit_bias=((7, 100.0),))))
    banned = tuple((token, -100.0) for token in sorted(set(free)))
    (without,) = all_of(batch, submit(tokens, GenerationParams(temperature=0.0, max_tokens=16, logit_bias=banned)))
    assert forced == [7, 7, 7, 7]
    assert not set(without) & set(free)


@pytest.mark.parametrize("token", [258, 10**9])
def test_a_bias_outside_the_vocabulary_is_the_client_s_error(batch: TextBatch, token: int) -> None:
    """A biased token outside the vocabulary is refused, because on the device it would write out of bounds."""
    with pytest.raises(InvalidRequest, match=str(token)):
        batch.admit(submit([1, 2], GenerationParams(logit_bias=((token, 1.0),))))


def test_a_picture_is_no_prompt_for_a_text_model(batch: TextBatch) -> None:
    """A text model refuses a prompt with images."""
    from periscope.core import Image
    from periscope.engine.worker.commands import Submit

    picture = ImagePrompt(Image(rgb=b"", width=0, height=0, source_width=0, source_height=0, sha256=""), "look")
    with pytest.raises(InvalidRequest, match="not images"):
        batch.admit(Submit(picture, GREEDY, NOBODY))
