"""`kv_bits`: keys and values in 8 or 4 bits, with the promises of those that are not quantised, in less memory."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx_lm.models.base import create_causal_mask, scaled_dot_product_attention
from mlx_lm.models.cache import KVCache, RotatingKVCache, trim_prompt_cache

from periscope.core import GenerationParams
from periscope.engine.batch.quantized_cache import MAX_PACKED_TOKENS, QuantizedCache, quantized_caches, unpacked
from periscope.engine.batch.row_caches import batch_caches
from periscope.engine.batch.slot_caches import reserve
from periscope.engine.config import EngineConfig
from periscope.engine.loading.footprint import measure
from periscope.engine.text_model import TextModel
from periscope.errors import ModelLoadError
from tests.engine.batch.test_prompt_logprobs import Scoring
from tests.engine.driving import Run, all_of, alone, load, submit
from tests.tiny_models import write_text_model

RANDOM = random.Random(17)
HEADS, QUERY_HEADS, HEAD_DIM = 2, 6, 64
GREEDY = GenerationParams(temperature=0.0, max_tokens=16)
SEEDED = GenerationParams(temperature=1.0, seed=3, top_k=30, max_tokens=16, frequency_penalty=0.3)
CACHE_BYTES = 8 * 2**20


def prompt(length: int) -> list[int]:
    return [RANDOM.randrange(250) for _ in range(length)]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_text_model(tmp_path_factory.mktemp("wide") / "wide", head_dim=HEAD_DIM)


@pytest.fixture(scope="module", params=[8, 4], ids=["8bit", "4bit"])
def bits(request: pytest.FixtureRequest) -> int:
    return int(request.param)


def config_of(bits: int, **changes: Any) -> EngineConfig:
    return EngineConfig(kv_bits=bits, prompt_cache_bytes=CACHE_BYTES, prefill_chunk_size=64, **changes)


@pytest.fixture(scope="module")
def model(path: Path, bits: int) -> TextModel:
    return load(path, config_of(bits))


def kv(num_tokens: int, seed: int) -> tuple[mx.array, mx.array]:
    """Keys and values of some tokens of one row."""
    keys, values = (mx.random.key(seed + at) for at in (0, 1000))
    shape = (1, HEADS, num_tokens, HEAD_DIM)
    return mx.random.normal(shape, key=keys), mx.random.normal(shape, key=values)


def empty_caches(bits: int, *, reads_packed: bool = True, num_layers: int = 1) -> list[Any]:
    filled = [KVCache() for _ in range(num_layers)]
    for layer in filled:
        layer.update_and_fetch(*kv(1, 0))
    own = [KVCache] * num_layers
    return quantized_caches(lambda: [new() for new in own], filled, bits, None, reads_packed=reads_packed)()


def attend(cache: Any, keys: mx.array, values: mx.array) -> mx.array:
    """As a model's layer does, with queries that depend on the keys alone."""
    rows, _, num_tokens, _ = keys.shape
    mask = cache.make_mask(num_tokens)
    queries = mx.concatenate([keys * (1 + head / 10) for head in range(QUERY_HEADS // HEADS)], axis=1)
    fetched = cache.update_and_fetch(keys, values)
    attended: mx.array = scaled_dot_product_attention(queries, *fetched, cache=cache, scale=HEAD_DIM**-0.5, mask=mask)
    assert attended.shape == (rows, QUERY_HEADS, num_tokens, HEAD_DIM)
    return attended


@pytest.mark.parametrize("pieces", [(40,), (1, 39), (16, 16, 8), (30, 1, 1, MAX_PACKED_TOKENS)])
def test_attention_reads_what_the_quantised_numbers_say(bits: int, pieces: tuple[int, ...]) -> None:
    """Packed or not, in whatever pieces the tokens came, with grouped heads: as over the unpacked numbers."""
    (cache,), at = empty_caches(bits), 0
    keys, values = kv(sum(pieces), 5)
    attended = []
    for piece in pieces:
        attended.append(attend(cache, keys[:, :, at : at + piece], values[:, :, at : at + piece]))
        at += piece
    read = [array[:, :, :at] for array in unpacked(cache.arrays, cache.quantization)]
    queries = mx.concatenate([keys * (1 + head / 10) for head in range(QUERY_HEADS // HEADS)], axis=1)
    expected = mx.fast.scaled_dot_product_attention(queries, *read, scale=HEAD_DIM**-0.5, mask=create_causal_mask(at))
    assert mx.allclose(mx.concatenate(attended, axis=2), expected, atol=1e-5)
    for got, given in zip(read, (keys, values), strict=True):
        assert (mx.abs(got - given) < 8 / 2**bits).all()  # half a step of numbers between about -4 and 4
        assert not mx.array_equal(got, given)


@pytest.mark.parametrize("reads_packed", [True, False])
def test_rows_of_a_batch_read_their_own_tokens_only(bits: int, reads_packed: bool) -> None:
    """Of different lengths, a row of no tokens among them; extracted, each is what it was alone."""
    lengths = (30, 0, 7, 300)
    rows = [empty_caches(bits, reads_packed=reads_packed) for _ in lengths]
    for row, (length, (cache,)) in enumerate(zip(lengths, rows, strict=True)):
        if length:
            attend(cache, *kv(length, row))
    batch = batch_caches([[c] for (c,) in empty_rows_like(rows)], 0)
    (layer,) = batch.layers
    assert layer.nbytes == len(lengths) * 512 * rows[0][0].arrays[0].shape[1] * slot_bytes(bits)
    for step in range(3):
        added = [kv(1, 50 + 10 * step + row) for row in range(len(lengths))]
        keys, values = (mx.concatenate(list(part)) for part in zip(*added, strict=True))
        together = attend(layer, keys, values)
        batch.advance()
        for row, (cache,) in enumerate(rows):
            assert mx.allclose(attend(cache, *added[row]), together[row : row + 1], atol=1e-5)
    for row, (cache,) in enumerate(rows):
        (copied,) = batch.extract(row)
        assert copied.offset == cache.offset == lengths[row] + 3
        pairs = zip(copied.arrays, cache.arrays, strict=True)
        assert all(mx.array_equal(one, other[:, :, : cache.offset]) for one, other in pairs)


def empty_rows_like(rows: Sequence[Sequence[QuantizedCache]]) -> list[list[QuantizedCache]]:
    """Copies, because a row goes on by itself, too."""
    return [
        [QuantizedCache(c.quantization, [mx.array(a) for a in c.arrays], c.offset, reads_packed=c.reads_packed)]
        for (c,) in rows
    ]


def slot_bytes(bits: int) -> int:
    """Bytes of the keys and values of one token of one head, in float32: a scale and a bias for 64 numbers."""
    return 2 * (HEAD_DIM * bits // 8 + 2 * 4)


def test_rooms_grow_in_whole_blocks_and_tokens_can_be_taken_back(bits: int) -> None:
    """As of caches that are not quantised: memory is counted in blocks, and drafts are trimmed."""
    caches = empty_caches(bits, num_layers=3)
    assert [cache.nbytes for cache in caches] == [0, 0, 0]
    reserve(caches, 257, at_most=2)
    assert [cache.nbytes for cache in caches] == [512 * HEADS * slot_bytes(bits)] * 2 + [0]
    for cache in caches:
        cache.update_and_fetch(*kv(20, 1))
    assert caches[2].nbytes == 256 * HEADS * slot_bytes(bits)
    assert trim_prompt_cache(caches, 5) == 5
    assert [cache.offset for cache in caches] == [15, 15, 15]
    (again,) = empty_caches(bits)
    again.state = caches[0].state
    assert mx.array_equal(attend(again, *kv(1, 2)), attend(caches[0], *kv(1, 2)))
    assert trim_prompt_cache(caches, 99) == 16
    assert all(cache.empty() for cache in caches)


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_alone_in_a_batch_and_from_a_warm_cache_a_request_gets_the_same(
    model: TextModel, params: GenerationParams
) -> None:
    """Neither other rows nor a kept state change a token."""
    submits = [submit(prompt(length), params) for length in (1, 2, 15, 40, 64, 65, 130, 200, 300)] * 2
    expected = alone(model, submits)
    batch = model.new_batch()
    assert all_of(batch, *submits) == expected
    warm = Run(batch)
    rows = warm.admit(*submits)
    warm.to_the_end()
    assert [warm.tokens[row] for row in rows] == expected
    assert all(warm.last[row].num_cached_tokens for row in rows if len(warm.tokens[row]) > 40)


def test_rows_that_join_and_leave_change_no_token(model: TextModel) -> None:
    """One-token prompts, rows in the place of retired ones, rows that grow beyond a block."""
    lengths = (250, 1, 40, 30, 1, 240, 20, 1)
    submits = [submit(prompt(length), replace(GREEDY, max_tokens=9 + 5 * at)) for at, length in enumerate(lengths)]
    expected = alone(model, submits)
    run, rows = Run(model.new_batch()), []
    for each in submits:
        rows += run.admit(each)
        run.step()
        run.step()
    run.to_the_end()
    assert [run.tokens[row] for row in rows] == expected


def test_chunks_change_no_token(path: Path, model: TextModel, bits: int) -> None:
    """Keys and values are quantised token by token, so it does not matter how a prompt is cut."""
    submits = [submit(prompt(length), GREEDY) for length in (70, 200, 333)]
    expected = alone(model, submits)
    for size in (16, 100, 512):
        assert alone(load(path, replace(config_of(bits), prefill_chunk_size=size)), submits) == expected


def test_a_conversation_goes_on_from_its_kept_state(model: TextModel) -> None:
    """A turn starts from what the last one left, and gets the tokens of one computed from its start."""
    batch, history = model.new_batch(), prompt(60)
    batch.clear_prompt_cache()
    for turn in range(3):
        run = Run(batch)
        (row,) = run.admit(submit(history, GREEDY))
        run.to_the_end()
        assert alone(model, [submit(history, GREEDY)]) == [run.tokens[row]]
        assert all_of(batch, submit(history, GREEDY)) == [run.tokens[row]]
        assert run.last[row].num_cached_tokens == 0 or turn
        history = [*history, *run.tokens[row], *prompt(9)]


def test_preempted_rows_get_the_same_tokens_within_the_bound(path: Path, model: TextModel, bits: int) -> None:
    """Memory for two rows, in quantised bytes; four grow from one block to three."""
    row_bytes = model._budget.footprint.nbytes(768)
    tight = load(path, config_of(bits, kv_limit_bytes=2 * row_bytes)).new_batch()
    long = replace(GREEDY, max_tokens=280, logit_bias=((257, -100.0),))
    submits = [submit(prompt(240), long) for _ in range(4)]
    expected = all_of(model.new_batch(), *submits)
    run = Run(tight)
    rows = run.admit(*submits)
    while run.live:
        run.step()
        assert tight._executor.rows_bytes + tight.prompt_cache_bytes <= 2 * row_bytes
    assert [run.tokens[row] for row in rows] == expected
    assert tight.num_preemptions


@pytest.mark.parametrize("params", [GREEDY, SEEDED], ids=["greedy", "seeded"])
def test_drafting_changes_no_token(path: Path, model: TextModel, bits: int, params: GenerationParams) -> None:
    """A draft is checked against quantised caches, of which the rejected tokens are taken back."""
    submits = [submit(prompt(length), replace(params, max_tokens=24)) for length in (1, 7, 60, 180)]
    expected = alone(model, submits)
    for draft in (path, write_text_model(path.parent / "other", seed=8)):
        drafting = load(path, config_of(bits, draft_model=str(draft)))
        assert alone(drafting, submits) == expected
        assert all_of(drafting.new_batch(), *submits) == expected


def test_looking_up_changes_no_token(path: Path, model: TextModel, bits: int) -> None:
    """Alone and beside each other: drafts stand in packed slots, too, and those that were wrong are overwritten."""
    said_twice = [prompt(length) * 2 for length in (7, 60, 90)]
    submits = [submit(tokens, replace(GREEDY, max_tokens=90)) for tokens in said_twice]
    expected = alone(model, submits)
    drafting = Run(load(path, config_of(bits, prompt_lookup=True)).new_batch())
    for each, tokens in zip(submits, expected, strict=True):
        (row,) = drafting.admit(each)
        drafting.to_the_end()
        assert drafting.tokens[row] == tokens
    rows = drafting.admit(*submits)
    drafting.to_the_end()
    assert [drafting.tokens[row] for row in rows] == expected
    assert sum(drafting.last[row].num_accepted for row in rows)


def test_probabilities_are_the_same_beside_others(model: TextModel) -> None:
    """Those of a prompt's own tokens are computed with quantised keys and values, too."""
    scored = replace(GREEDY, logprobs=True, top_logprobs=2, prompt_logprobs=True, max_tokens=3)
    tokens, others = prompt(90), [submit(prompt(length), GREEDY) for length in (5, 130)]
    told = []
    for beside in ([], others):
        batch = model.new_batch()
        batch.clear_prompt_cache()
        run = Scoring(batch)
        (row, *_) = run.admit(submit(tokens, scored), *beside)
        run.to_the_end()
        told.append([entry.logprob for entry in run.scored[row]])
    assert len(told[0]) == len(tokens)
    assert told[0][1:] == pytest.approx(told[1][1:], abs=1e-4)


def test_the_ledger_knows_the_bytes(path: Path, model: TextModel, bits: int) -> None:
    """Before the load, at admission, and of the arrays themselves: the same arithmetic, and about half of before."""
    plain, footprint = load(path), model._budget.footprint
    for num_tokens in (1, 256, 257, 1024):
        blocks = -(-num_tokens // 256) * 256
        assert footprint.nbytes(num_tokens) == 2 * blocks * HEADS * slot_bytes(bits)
        assert footprint.nbytes(num_tokens) <= plain._budget.footprint.nbytes(num_tokens) * (bits / 32 + 1 / 32)
    told = measure(str(path), config_of(bits)).reserve_bytes
    assert told == footprint.nbytes(2048)
    batch = model.new_batch()
    run = Run(batch)
    long = replace(GREEDY, max_tokens=200, logit_bias=((257, -100.0),))
    (row,) = run.admit(submit(prompt(300), long))
    while not run.tokens[row]:
        run.step()
    assert batch._executor.rows_bytes == footprint.nbytes(300)
    run.admit(*(submit(prompt(290), long) for _ in range(3)))
    while batch._executor.has_prompts:
        run.step()
    assert batch._executor.rows_bytes == 4 * footprint.nbytes(300)
    run.to_the_end()
    half = load(path, config_of(bits, dtype="bfloat16"))._budget.footprint.nbytes(1024)
    as_it_is = load(path, EngineConfig(dtype="bfloat16"))._budget.footprint.nbytes(1024)
    assert half == as_it_is * (bits / 16 + 1 / 32)


def test_groups_are_smaller_where_heads_demand_it(tmp_path: Path) -> None:
    """Heads of 32 numbers have groups of 32; a configured size that does not fit is refused with those that do."""
    path = write_text_model(tmp_path / "narrow", head_dim=32)
    (cache, *_) = load(path, EngineConfig(kv_bits=8))._new_caches()
    assert cache.group_size == 32
    with pytest.raises(ModelLoadError, match=r"groups of 64 numbers, .* heads of 32\. .*`kv_group_size`"):
        load(path, EngineConfig(kv_bits=8, kv_group_size=64))


def test_heads_without_whole_groups_are_refused(tiny_text_model: Path) -> None:
    """Before the load, too, so that no other model makes room for it."""
    said = r"groups of 64 or 32 numbers, .* heads of 16\. Remove `kv_bits`\.$"
    with pytest.raises(ModelLoadError, match=said):
        measure(str(tiny_text_model), EngineConfig(kv_bits=4))
    with pytest.raises(ModelLoadError, match=said):
        load(tiny_text_model, EngineConfig(kv_bits=4))


def test_a_model_without_keys_and_values_is_refused() -> None:
    """Windows alone hold nothing that is worth it."""
    window = RotatingKVCache(64)
    window.update_and_fetch(*kv(1, 0))
    with pytest.raises(ModelLoadError, match=r"this model has none \(RotatingKVCache\)"):
        quantized_caches(lambda: [RotatingKVCache(64)], [window], 8, None, reads_packed=True)
