"""State files: what is written is read again, as much of it as is wanted, and nothing else is ever taken for it."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, TypeVar

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache, CacheList, KVCache, QuantizedKVCache, RotatingKVCache

from periscope.engine.batch.disk.layout import PIECE_BYTES, NotStorable, layout_of
from periscope.engine.batch.disk.state_file import StateFileInvalid, StoredState, read_header, read_pieces
from periscope.engine.batch.prompt_cache import LayerCaches
from periscope.engine.device.memory import flat
from tests.engine.batch.disk.states import CHAT, KEY, new_caches, state, tokens_in, write

T = TypeVar("T")


def ended(work: Generator[None, None, T]) -> T:
    """The result of work that is done piece by piece."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            result: T = end.value
            return result


def arrays_of(caches: LayerCaches) -> list[np.ndarray]:
    from mlx.utils import tree_flatten

    return [
        np.array(array.astype(mx.float32))
        for cache in flat(caches)
        for _, array in tree_flatten(cache.state)
        if isinstance(array, mx.array)
    ]


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    """Tokens, keys and values, to the bit; no more than the state holds."""
    stored = read_header(write(tmp_path / "a.safetensors", CHAT, state(CHAT)), KEY)
    assert stored.tokens.tolist() == CHAT
    caches = ended(read_pieces(stored, len(CHAT), new_caches))
    assert tokens_in(caches) == CHAT
    keys, values = caches[1].keys_and_values()
    assert (values - keys).min().item() == (values - keys).max().item() == 1
    assert stored.nbytes == (tmp_path / "a.safetensors").stat().st_size
    assert stored.layout.nbytes(len(CHAT)) == 2 * 2 * len(CHAT) * 2 * 4 * 4


def test_the_beginning_of_a_state_is_read_without_the_rest(tmp_path: Path) -> None:
    """A prompt that shares a beginning with a long conversation waits for the beginning only."""
    tokens = list(range(3 * PIECE_BYTES // 32))
    stored = read_header(write(tmp_path / "a.safetensors", tokens, state(tokens)), KEY)
    caches = ended(read_pieces(stored, 70, new_caches))
    assert tokens_in(caches) == tokens[:70]
    assert caches[0].offset == 70
    whole, part = (sum(1 for _ in read_pieces(stored, num, new_caches)) for num in (len(tokens), 70))
    assert (whole, part) == (12, 4)


def test_it_is_a_file_that_other_programs_read(tmp_path: Path) -> None:
    """It is safetensors, so that whoever wonders can look into it."""
    arrays = mx.load(str(write(tmp_path / "a.safetensors", CHAT, state(CHAT))))
    assert isinstance(arrays, dict)
    assert arrays["tokens"].tolist() == CHAT
    assert arrays["1.1"].shape == (len(CHAT), 2, 4)


def filled(cache: Any, num_tokens: int, dtype: mx.Dtype) -> Any:
    """The cache after some tokens, one by one at the end, as in decoding."""
    keys = mx.random.normal((1, 2, num_tokens, 64)).astype(dtype)
    cache.update_and_fetch(keys[:, :, :-2], keys[:, :, :-2] + 1)
    for at in (num_tokens - 2, num_tokens - 1):
        cache.update_and_fetch(keys[:, :, at : at + 1], keys[:, :, at : at + 1])
    return cache


def arrays_cache() -> ArraysCache:
    cache = ArraysCache(2)
    cache[0], cache[1] = mx.random.normal((1, 3, 8)), mx.random.normal((1, 2, 4, 4)).astype(mx.bfloat16)
    return cache


CASES: dict[str, tuple[Callable[[], LayerCaches], Callable[[], LayerCaches]]] = {
    "plain": (lambda: [filled(KVCache(), 100, mx.bfloat16)], lambda: [KVCache()]),
    "half": (lambda: [filled(KVCache(), 100, mx.float16)], lambda: [KVCache()]),
    "quantised": (
        lambda: [filled(QuantizedKVCache(group_size=32, bits=4), 100, mx.float16)],
        lambda: [QuantizedKVCache(group_size=32, bits=4)],
    ),
    "window": (lambda: [filled(RotatingKVCache(32), 100, mx.float32)], lambda: [RotatingKVCache(32)]),
    "young window": (lambda: [filled(RotatingKVCache(256), 100, mx.float32)], lambda: [RotatingKVCache(256)]),
    "state space": (lambda: [arrays_cache(), filled(KVCache(), 100, mx.float32)], lambda: [ArraysCache(2), KVCache()]),
    "lists": (
        lambda: [CacheList(filled(KVCache(), 100, mx.float32), filled(RotatingKVCache(32), 100, mx.float32))],
        lambda: [CacheList(KVCache(), RotatingKVCache(32))],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_cache_goes_on_as_if_it_had_stayed_in_memory(case: str, tmp_path: Path) -> None:
    """Its arrays are equal to the bit, and so is what it holds once another token has come."""
    make, new = CASES[case]
    caches = make()
    mx.eval([cache.state for cache in flat(caches)])
    path = write(tmp_path / "a.safetensors", list(range(100)), caches, is_trimmable=False)
    again = ended(read_pieces(read_header(path, KEY), 100, new))
    for cache, read in zip(flat(caches), flat(again), strict=True):
        assert type(cache) is type(read)
        if isinstance(cache, ArraysCache):
            continue
        token = mx.ones((1, 2, 1, 64), dtype=mx.float16 if case in {"half", "quantised"} else mx.float32)
        for one, other in zip(cache.update_and_fetch(token, token), read.update_and_fetch(token, token), strict=True):
            for a, b in zip(one, other, strict=True) if isinstance(one, (list, tuple)) else [(one, other)]:
                assert mx.array_equal(a, b)
    if case == "state space":
        assert all(np.array_equal(a, b) for a, b in zip(arrays_of(caches[:1]), arrays_of(again[:1]), strict=True))


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    """Before anything is written: a state of another length, an array of another type."""
    with pytest.raises(NotStorable, match="a KVCache of 200 tokens in a state of 100"):
        layout_of(state(CHAT), 100, is_trimmable=True)
    odd = ArraysCache(1)
    odd[0] = mx.zeros((1, 2), dtype=mx.complex64)
    with pytest.raises(NotStorable, match="complex64"):
        layout_of([odd], 100, is_trimmable=False)
    assert not list(tmp_path.iterdir())


def broken(path: Path, key: str = KEY) -> str:
    """Why the file cannot be used, by its header or by its arrays."""
    with pytest.raises(StateFileInvalid) as told:  # noqa: PT012 - either of the two may be the one that tells
        stored: StoredState = read_header(path, key)
        ended(read_pieces(stored, stored.layout.num_tokens, new_caches))
    return str(told.value)


@given(st.integers(min_value=0, max_value=20_000))
def test_a_truncated_file_is_known_by_its_header(length: int) -> None:
    """However much of it is there."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.safetensors", CHAT, state(CHAT))
        data = path.read_bytes()
        path.write_bytes(data[: min(length, len(data) - 1)])
        with pytest.raises(StateFileInvalid):
            read_header(path, KEY)


@given(st.data())
def test_a_damaged_byte_never_goes_unnoticed(data: st.DataObject) -> None:
    """Wherever it is, the file is refused."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = write(Path(folder) / "a.safetensors", CHAT[:80], state(CHAT[:80]))
        whole = bytearray(path.read_bytes())
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at] ^= data.draw(st.integers(1, 255))
        path.write_bytes(whole)
        assert broken(path)


def test_other_files_are_told_from_states_of_this_model(tmp_path: Path) -> None:
    """Another model's state, other weights, no safetensors, a header that promises the moon."""
    path = write(tmp_path / "a.safetensors", CHAT, state(CHAT))
    assert "another model" in broken(path, "of-another-model")
    mx.save_safetensors(str(path), {"tokens": mx.zeros((4,))})
    assert "cannot be understood" in broken(path)
    path.write_bytes(b"")
    assert "no header" in broken(path)
    path.write_bytes((2**62).to_bytes(8, "little") + b"{}")
    assert "no header" in broken(path)
    data = write(path, CHAT, state(CHAT)).read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["tokens"]["shape"] = [2**60]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    assert broken(path)


def test_a_state_of_other_caches_is_not_forced_on_a_model(tmp_path: Path) -> None:
    """The last guard, should a key ever be the same for two models."""
    path = write(tmp_path / "a.safetensors", CHAT, state(CHAT, num_layers=3))
    assert "other caches" in broken(path)
