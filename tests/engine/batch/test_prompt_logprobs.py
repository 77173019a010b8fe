"""Log-probabilities of a prompt's own tokens: those of one forward pass over all of it, however it is computed."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from mlx_lm.models.cache import make_prompt_cache

from periscope.core import GenerationParams, TokenLogprob
from periscope.engine import EngineConfig
from periscope.engine.batch.text_batch import TextBatch
from periscope.engine.text_model import TextModel
from tests.engine.batch.batches import prompt
from tests.engine.batch.test_prompt import ticking
from tests.engine.driving import GREEDY, Run, all_of, load, submit
from tests.tiny_models import SHAPES, write_text_model

SCORED = GenerationParams(temperature=0.0, max_tokens=3, logprobs=True, top_logprobs=2, prompt_logprobs=True)
CONFIG = EngineConfig(prompt_cache_bytes=16 * 2**20, prefill_chunk_size=64)


class Scoring(Run):
    """Keeps what is told of the prompts."""

    def __init__(self, batch: TextBatch) -> None:
        super().__init__(batch)
        self.scored: dict[int, list[TokenLogprob]] = {}

    def step(self) -> None:
        self.num_steps += 1
        for sampled in self.batch.step():
            assert sampled.error is None
            self.tokens[sampled.row].append(sampled.token_id)
            self.scored.setdefault(sampled.row, []).extend(sampled.prompt_logprobs)
            if sampled.finish_reason is not None:
                self.live.discard(sampled.row)


@pytest.fixture(scope="module", params=sorted(SHAPES))
def shaped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TextModel:
    kind = str(request.param)
    return load(write_text_model(tmp_path_factory.mktemp(kind) / "deep", model_type=kind), CONFIG)


def expect(model: TextModel, tokens: list[int], told: list[TokenLogprob]) -> None:
    """Compare with a forward pass over the whole prompt."""
    network = model._model
    logits = network(mx.array([tokens]), cache=make_prompt_cache(network))[0].astype(mx.float32)
    every = (logits - mx.logsumexp(logits, axis=-1, keepdims=True)).tolist()
    assert [entry.token.token_id for entry in told] == tokens
    assert (told[0].logprob, told[0].top) == (None, ())
    for at, entry in enumerate(told[1:]):
        assert entry.logprob == pytest.approx(every[at][tokens[at + 1]], abs=1e-3)
        assert [value for _, value in entry.top] == pytest.approx(sorted(every[at], reverse=True)[:2], abs=1e-3)


def test_they_are_those_of_one_forward_pass(shaped: TextModel) -> None:
    """In chunks and layer slices, beside rows that decode and prompts that do not ask, for every kind of cache."""
    batch = shaped.new_batch()
    run, prompts = Scoring(batch), [prompt(length) for length in (1, 2, 64, 65, 300)]
    endless = replace(GREEDY, max_tokens=200, ignore_eos=True)
    (decoding,) = run.admit(submit(prompt(20), endless))
    while not run.tokens[decoding]:
        run.step()
    rows = run.admit(*(submit(tokens, SCORED) for tokens in prompts), submit(prompt(100)))
    run.to_the_end()
    for row, tokens in zip(rows, prompts, strict=False):
        expect(shaped, tokens, run.scored[row])
    assert run.scored[decoding] == run.scored[rows[-1]] == []
    batch.close()


def test_a_computed_prefix_is_computed_again(model: TextModel, batch: TextBatch) -> None:
    """Its state says nothing of its tokens' log-probabilities; the completion is the same, and others use the state."""
    tokens = prompt(200)
    plain = all_of(batch, submit(tokens, replace(SCORED, prompt_logprobs=False)))
    run = Scoring(batch)
    one, two = run.admit(submit(tokens, SCORED), submit(tokens, SCORED))
    run.to_the_end()
    for row in (one, two):
        assert run.tokens[row] == plain[0]
        expect(model, tokens, run.scored[row])
    later = Run(batch)
    (row,) = later.admit(submit(tokens))
    later.to_the_end()
    assert later.last[row].num_cached_tokens == len(tokens) - 1


@pytest.mark.parametrize("num_tokens", [1, 3])
def test_they_are_told_once_also_when_the_row_is_preempted(model: TextModel, num_tokens: int) -> None:
    """Half computed they are dropped and computed again; once told they are not told with a later token."""
    batch = model.new_batch(ticking())  # so that a step beside a decoding row computes the same part on any machine
    tokens, run = prompt(300), Scoring(batch)
    endless = replace(GREEDY, max_tokens=400, ignore_eos=True)
    (decoding,) = run.admit(submit(prompt(20), endless))
    while not run.tokens[decoding]:
        run.step()
    (row,) = run.admit(submit(tokens, replace(SCORED, max_tokens=num_tokens)))
    executor = batch._executor
    while not executor.prompts[0].num_computed:
        run.step()
    executor._preempt([row])
    if num_tokens > 1:
        while not run.tokens[row]:
            run.step()
        for sampled in executor.decoding.read():
            run.tokens[sampled.row].append(sampled.token_id)
        executor._preempt([row])
    run.to_the_end()
    expect(model, tokens, run.scored[row])
    assert len(run.tokens[row]) == num_tokens
    batch.close()
