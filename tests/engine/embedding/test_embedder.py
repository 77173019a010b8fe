"""EmbeddingEngine: texts and token ids in, vectors out, over one worker; what it refuses; what is given up."""

from __future__ import annotations

import asyncio
import itertools
import struct
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.core import MAX_INPUT_TOKENS, EmbeddingRequest, GenerationParams
from periscope.engine import EmbeddingEngine, EngineConfig
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.embedding.embedding_batch import (
    MAX_PADDING_TOKENS,
    EmbeddingBatch,
    EmbeddingModel,
    next_texts,
)
from periscope.engine.loading.embedding_files import BATCH_TOKENS
from periscope.engine.worker.commands import EmbeddingPrompt, Submit
from periscope.engine.worker.stream import TokenStream
from periscope.errors import EngineClosed, InputTooLong, InvalidRequest
from tests.engine.embedding.checkpoints import CONFIGS, SIZE, write_model
from tests.engine.freed import freed_bytes

PROMPTS = {"query": "ask ", "document": ""}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "tiny-bert", "bert", prompts=PROMPTS)


def request(*inputs: Any, **fields: Any) -> EmbeddingRequest:
    return EmbeddingRequest("embd-1", "", inputs, **fields)


async def vectors(engine: EmbeddingEngine, *inputs: Any, **fields: Any) -> Any:
    made = await engine.embed(request(*inputs, **fields))
    return np.stack([np.frombuffer(vector, "<f4") for vector in made.vectors])


def with_engine(
    folder: Path, use: Callable[[EmbeddingEngine], Awaitable[None]], turn: DeviceTurn | None = None, **config: Any
) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            async with await EmbeddingEngine.load(str(folder), EngineConfig(**config), turn=turn) as engine:
                await use(engine)

    asyncio.run(run())


def test_texts_and_their_token_ids_have_the_same_vectors(folder: Path) -> None:
    """In order, whatever their lengths; special tokens are added to texts and not to ids, and both are counted."""

    async def use(engine: EmbeddingEngine) -> None:
        texts = ("abc", "the longest of them all is this", "a", "abc")
        made = await vectors(engine, *texts)
        assert made.shape == (4, SIZE)
        np.testing.assert_allclose(made[0], made[3], atol=1e-6)
        for text, vector in zip(texts, made, strict=True):
            np.testing.assert_allclose((await vectors(engine, text))[0], vector, atol=1e-5)
        np.testing.assert_allclose((await vectors(engine, (2, 4, 5, 6, 3)))[0], made[0], atol=1e-6)
        assert (await engine.embed(request("abc", (4, 5)))).num_tokens == 5 + 2

    with_engine(folder, use)


def test_requests_share_the_batch(folder: Path) -> None:
    """Many at once get the vectors that each gets alone."""

    async def use(engine: EmbeddingEngine) -> None:
        texts = ["abcdefgh"[: 1 + number % 8] * (1 + number % 5) for number in range(40)]
        together = await asyncio.gather(*(vectors(engine, text, "xyz") for text in texts))
        for text, (vector, _) in list(zip(texts, together, strict=True))[::7]:
            np.testing.assert_allclose((await vectors(engine, text))[0], vector, atol=1e-5)
        assert engine.num_rows == 0

    with_engine(folder, use)


def test_a_prompt_goes_before_the_text(folder: Path) -> None:
    """By its name; the model's default is used where none is named."""

    async def use(engine: EmbeddingEngine) -> None:
        prompted, plain = await vectors(engine, "abc", prompt_name="query"), await vectors(engine, "ask abc")
        np.testing.assert_allclose(prompted, plain, atol=1e-6)
        with pytest.raises(InvalidRequest, match=r"none of this model's prompts. Known: query, document"):
            await engine.embed(request("abc", prompt_name="passage"))

    with_engine(folder, use)


def test_fewer_dimensions_are_of_unit_length_again(folder: Path) -> None:
    """Where the model is said to be trained for it; the full size may always be asked for."""

    async def use(engine: EmbeddingEngine) -> None:
        (full,), (cut,) = await vectors(engine, "abc", dimensions=SIZE), await vectors(engine, "abc", dimensions=8)
        np.testing.assert_allclose(cut, full[:8] / np.linalg.norm(full[:8]), atol=1e-6)
        for asked in (0, SIZE + 1):
            with pytest.raises(InvalidRequest, match=f"`dimensions` is {asked}, but .* have {SIZE} numbers"):
                await engine.embed(request("abc", dimensions=asked))

    async def refuse(engine: EmbeddingEngine) -> None:
        assert (await vectors(engine, "abc", dimensions=SIZE)).shape == (1, SIZE)
        with pytest.raises(InvalidRequest, match=r"params.matryoshka: true"):
            await engine.embed(request("abc", dimensions=8))

    with_engine(folder, use, matryoshka=True)
    with_engine(folder, refuse)


def test_a_text_that_is_too_long_is_refused_or_cut(folder: Path) -> None:
    """With its place and both numbers; cut, it is the vector of its beginning between the special tokens."""

    async def use(engine: EmbeddingEngine) -> None:
        assert engine.max_tokens == 20
        with pytest.raises(InputTooLong, match=r"`input\[1\]` has 21 tokens, but this model takes 20") as caught:
            await engine.embed(request("a", "b" * 19))
        assert (caught.value.param, caught.value.num_tokens, caught.value.limit) == ("input[1]", 21, 20)
        with pytest.raises(InputTooLong, match="`input` has at least"):
            await engine.embed(request("b" * 100_000))
        with pytest.raises(InputTooLong, match="has 30 tokens"):
            await engine.embed(request((5,) * 30))
        cut = await engine.embed(request("b" * 50, (5,) * 50, truncate_tokens=-1))
        assert cut.num_tokens == 40
        np.testing.assert_allclose(
            await vectors(engine, "b" * 50, truncate_tokens=-1), await vectors(engine, "b" * 18), atol=1e-6
        )
        assert (await engine.embed(request("b" * 50, truncate_tokens=7))).num_tokens == 7
        with pytest.raises(InvalidRequest, match=r"must be -1 .* or 3 to 20"):
            await engine.embed(request("a", truncate_tokens=2))

    with_engine(folder, use, context_length=20)


def test_all_texts_together_are_bounded(folder: Path) -> None:
    """Before any of them is computed."""

    async def use(engine: EmbeddingEngine) -> None:
        with pytest.raises(InputTooLong, match=f"at most {MAX_INPUT_TOKENS} are taken at once"):
            await engine.embed(request(*["ab" * 60] * 2048 * 2))

    with_engine(folder, use)


@pytest.mark.parametrize("token_id", [-1, 64])
def test_ids_of_another_vocabulary_are_refused(folder: Path, token_id: int) -> None:
    """With the place, the id and the bounds: they would be read beyond the table."""

    async def use(engine: EmbeddingEngine) -> None:
        with pytest.raises(InvalidRequest, match=rf"`input\[1\]` has the token id {token_id}, .* 0 to 63"):
            await engine.embed(request("a", (5, token_id)))

    with_engine(folder, use)


def test_a_cancelled_request_is_given_up_between_forward_passes(folder: Path) -> None:
    """Its row is gone at the next step, and a request beside it is served."""
    turn = DeviceTurn()

    async def use(engine: EmbeddingEngine) -> None:
        long = asyncio.create_task(engine.embed(request(*["ab" * 60] * 2000)))
        while engine.num_rows == 0:
            await asyncio.sleep(0)
        beside = asyncio.create_task(vectors(engine, "abc"))
        long.cancel()
        with pytest.raises(asyncio.CancelledError):
            await long
        assert (await beside).shape == (1, SIZE)
        while engine.num_rows:
            await asyncio.sleep(0)

    with_engine(folder, use, turn)


def test_a_closed_engine_fails_what_runs(folder: Path) -> None:
    """And refuses what comes later."""

    async def use(engine: EmbeddingEngine) -> None:
        running = asyncio.create_task(engine.embed(request(*["ab" * 60] * 2000)))
        while engine.num_rows == 0:
            await asyncio.sleep(0)
        await engine.close()
        with pytest.raises(EngineClosed):
            await running
        with pytest.raises(EngineClosed):
            await engine.embed(request("a"))

    with_engine(folder, use)


@pytest.mark.parametrize("family", CONFIGS)
def test_a_closed_engine_leaves_nothing(tmp_path: Path, family: str) -> None:
    """Its weights are freed, which its worker counts, and both of its threads end."""
    folder, threads = write_model(tmp_path, family, dense=6), set(threading.enumerate())

    async def run() -> None:
        engine = await EmbeddingEngine.load(str(folder))
        await engine.embed(request("abc"))
        await engine.close()
        assert (freed_bytes(engine) or 0) >= engine.memory.weights_bytes > 0

    asyncio.run(run())
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
    assert set(threading.enumerate()) <= threads


def test_a_query_does_not_wait_for_a_whole_library(folder: Path) -> None:
    """Requests take turns: a short one is done after the forward pass under way and one of its own."""
    model = EmbeddingModel.load(folder, EngineConfig(), DeviceTurn(), lambda _done, _total: None)
    batch = model.new_batch()
    loop = asyncio.new_event_loop()
    rows = [
        batch.admit(Submit(EmbeddingPrompt(texts), GenerationParams(), TokenStream(loop)))
        for texts in (((5,) * 100,) * 200, ((5, 6),))
    ]
    assert [sampled.row for _ in range(2) for sampled in batch.step()] == [rows[1]]
    assert batch.has_work
    batch.remove(rows)
    assert not batch.has_work
    loop.close()


@pytest.mark.parametrize(("pass_s", "num_passes"), [(0.001, 2), (10.0, 5)])
def test_a_forward_pass_is_as_large_as_it_is_fast(folder: Path, pass_s: float, num_passes: int) -> None:
    """Four texts of 64 tokens to begin with; then the other four at once, or one by one on a slow machine."""
    model = EmbeddingModel.load(folder, EngineConfig(), DeviceTurn(), lambda _done, _total: None)
    batch = EmbeddingBatch(model, itertools.count(0.0, pass_s).__next__)
    loop = asyncio.new_event_loop()
    batch.admit(Submit(EmbeddingPrompt(((5,) * 64,) * 8), GenerationParams(), TokenStream(loop)))
    passes = 0
    while batch.has_work:
        batch.step()
        passes += 1
    assert passes == num_passes
    loop.close()


LENGTHS = st.lists(st.lists(st.integers(1, 5000), max_size=30), min_size=1, max_size=4)


@given(LENGTHS)
def test_every_text_is_computed_once_within_the_bounds(rows: list[list[int]]) -> None:
    """Each forward pass has little padding and a bounded size, and begins with the first request."""
    waiting = {row: sorted((length, index) for index, length in enumerate(rows[row])) for row in range(len(rows))}
    done: list[tuple[int, int]] = []
    while any(waiting.values()):
        first = next(row for row, texts in waiting.items() if texts)
        chosen = next_texts(waiting, BATCH_TOKENS)
        lengths = [rows[row][index] for row, index in chosen]
        assert chosen[0][0] == first
        assert lengths[0] == max(lengths)
        assert max(lengths) - min(lengths) <= MAX_PADDING_TOKENS
        assert len(chosen) == 1 or len(chosen) * lengths[0] <= BATCH_TOKENS
        done += chosen
    assert sorted(done) == [(row, index) for row, texts in enumerate(rows) for index in range(len(texts))]
    assert next_texts(waiting, BATCH_TOKENS) == []


def test_vectors_are_little_endian_floats(folder: Path) -> None:
    """As clients unpack them."""

    async def use(engine: EmbeddingEngine) -> None:
        (vector,) = (await engine.embed(request("abc"))).vectors
        assert sum(number**2 for number in struct.unpack(f"<{SIZE}f", vector)) == pytest.approx(1, abs=1e-5)

    with_engine(folder, use)
