"""DiskTier: what it writes and when, and that nothing on a disk can do a request any harm."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Generator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlx_lm.models.cache import ArraysCache

from periscope.engine.batch.disk.files import NAME_DIGITS, SET_ASIDE, kept_files
from periscope.engine.batch.disk.layout import PIECE_BYTES
from periscope.engine.batch.disk.tier import DiskTier
from periscope.engine.batch.prompt_cache import LayerCaches, PromptCache
from tests.engine.batch.disk.states import CHAT, KEY, MB, Clock, new_caches, state, tier, tokens_in, write


def cache_of(*conversations: list[int]) -> PromptCache:
    cache = PromptCache(64 * MB)
    for tokens in conversations:
        cache.keep(tokens, state(tokens))
    return cache


def found(disk: DiskTier, tokens: list[int], max_bytes: int = 64 * MB) -> list[int]:
    """The tokens of the state that a prompt begins with, as they stand in its caches; empty if there is none."""
    prefix = disk.find(np.asarray(tokens, dtype=np.int64), max_bytes)
    while prefix is not None:
        reading: Generator[None, None, tuple[list[int], LayerCaches] | None] = disk.read(prefix)
        try:
            while True:
                next(reading)
        except StopIteration as end:
            if end.value is not None:
                read, caches = end.value
                assert tokens_in(caches) == read
                return list(read)
        prefix = disk.find(np.asarray(tokens, dtype=np.int64), max_bytes)
    return []


def files_of(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.rglob("*") if path.is_file())


def test_a_state_survives_the_model_and_the_process(tmp_path: Path) -> None:
    """Saved when the model goes, and found by the next life of it: as much of it as the prompt shares."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    later = tier(tmp_path, PromptCache(MB))
    assert later.use.num_bytes == sum(file.nbytes for file in kept_files(tmp_path))
    assert later.use.written_bytes == 0
    assert found(later, [*CHAT, 1, 2, 3]) == CHAT
    assert found(later, [*CHAT[:90], 1, 2, 3]) == CHAT[:90]
    assert found(later, [5, *CHAT]) == []


def test_nothing_is_written_while_somebody_may_come(tmp_path: Path) -> None:
    """Only once the model has been idle for the time that is set; a request begins it anew."""
    clock = Clock()
    disk = tier(tmp_path, cache_of(CHAT), clock=clock)
    disk.rest()
    clock.now = 59
    assert disk.rest() == 1.0
    disk.note_work()
    clock.now = 100
    assert disk.rest() == 1.0
    assert files_of(tmp_path) == []
    clock.now = 161
    while disk.rest() == 0.0:
        pass
    assert files_of(tmp_path) == [".safetensors"]
    assert disk.use.written_bytes == disk.use.num_bytes > 0


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    """Resting for ever writes a state once; so do its next life and a turn that adds little."""
    cache = cache_of(CHAT)
    disk = tier(tmp_path, cache, write_after_s=0)
    for _ in range(50):
        disk.rest()
    written_bytes = disk.use.written_bytes
    disk.save(60)
    cache.keep([*CHAT, 7], state([*CHAT, 7]))
    disk.save(60)
    assert disk.use.written_bytes == written_bytes
    again = tier(tmp_path, cache_of(CHAT))
    again.save(60)
    assert again.use.written_bytes == 0


def test_a_conversation_that_has_grown_takes_the_place_of_its_beginning(tmp_path: Path) -> None:
    """One file for each conversation, however many turns it has."""
    cache = cache_of(CHAT[:80])
    disk = tier(tmp_path, cache)
    disk.save(60)
    cache.keep(CHAT, state(CHAT))
    disk.save(60)
    assert files_of(tmp_path) == [".safetensors"]
    assert found(tier(tmp_path, PromptCache(MB)), [*CHAT, 1]) == CHAT


def test_a_request_in_the_middle_of_a_write_does_not_begin_it_anew(tmp_path: Path) -> None:
    """The pieces that are written stay so, and the file comes when the model is idle again."""
    tokens = list(range(PIECE_BYTES // 32 * 2))
    clock = Clock()
    disk = tier(tmp_path, cache_of(tokens), clock=clock, write_after_s=1)
    disk.rest()
    clock.now = 1
    assert [disk.rest() for _ in range(4)] == [0.0] * 4
    assert files_of(tmp_path) == [".partial"]
    disk.note_work()
    assert disk.rest() == 1.0
    clock.now = 2
    rests = 0
    while disk.rest() == 0.0:
        rests += 1
    assert rests < 9  # eight pieces, the header, the end: some had been written
    assert found(tier(tmp_path, PromptCache(MB)), tokens) == tokens[:-1]


def test_a_state_that_memory_was_needed_for_is_not_held_for_its_file(tmp_path: Path) -> None:
    """It is evicted while it is written: the write ends, and the file is none."""
    cache = cache_of(list(range(PIECE_BYTES // 32)))
    disk = tier(tmp_path, cache, write_after_s=0)
    for _ in range(3):
        disk.rest()
    assert files_of(tmp_path) == [".partial"]
    cache.clear()
    disk.rest()
    assert files_of(tmp_path) == []


def test_the_end_does_not_wait_for_a_slow_disk(tmp_path: Path) -> None:
    """What is not written in time is lost, and leaves no half of it."""
    disk = tier(tmp_path, cache_of(CHAT))
    disk.save(0)
    assert files_of(tmp_path) == []


def test_another_model_of_the_same_name_finds_nothing(tmp_path: Path) -> None:
    """Its key is another, so it looks elsewhere; both count for the bound."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    other = tier(tmp_path, cache_of(CHAT), key="other-weights")
    assert found(other, [*CHAT, 1]) == []
    other.save(60)
    assert files_of(tmp_path) == [".safetensors"] * 2
    (size,) = {file.nbytes for file in kept_files(tmp_path)}
    tier(tmp_path, PromptCache(MB), max_bytes=size)  # at the start
    assert files_of(tmp_path) == [".safetensors"]


@pytest.mark.parametrize("harm", ["truncated", "foreign", "garbage", "empty"])
def test_a_file_that_cannot_be_used_is_set_aside_with_a_line(
    harm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is; the model loads, its prompts are computed, and the next state is written."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    (file,) = kept_files(tmp_path)
    data = file.path.read_bytes()
    match harm:
        case "truncated":
            file.path.write_bytes(data[:-100])
        case "foreign":
            write(file.path, CHAT, state(CHAT), "of-another-model")
        case "garbage":
            file.path.write_bytes(os.urandom(len(data)))
        case _:
            file.path.write_bytes(b"")
    disk = tier(tmp_path, cache_of(CHAT))
    (line,) = caplog.records
    assert "set aside" in line.getMessage()
    assert found(disk, [*CHAT, 1]) == []
    assert files_of(tmp_path) == [SET_ASIDE]
    disk.save(60)
    assert files_of(tmp_path) == [".safetensors", SET_ASIDE]


def test_damage_that_shows_when_a_state_is_read_is_a_miss(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The header is right, an array is not: one line, and the prompt is computed."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    (file,) = kept_files(tmp_path)
    data = bytearray(file.path.read_bytes())
    data[-200] ^= 1
    file.path.write_bytes(data)
    disk = tier(tmp_path, PromptCache(MB))
    assert not caplog.records
    assert found(disk, [*CHAT, 1]) == []
    assert "damaged" in caplog.text
    assert files_of(tmp_path) == [SET_ASIDE]


def test_a_file_that_somebody_removed_is_a_miss(tmp_path: Path) -> None:
    """Another model needed the room, or a person did: nothing is said, and nothing is counted any more."""
    cache = cache_of(CHAT)
    disk = tier(tmp_path, cache)
    disk.save(60)
    for file in kept_files(tmp_path):
        file.path.unlink()
    cache.clear()
    assert found(disk, [*CHAT, 1]) == []
    assert disk.use.num_bytes == 0


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The model works as without a disk."""
    (tmp_path / "prompts").write_text("a file in the way")
    cache = cache_of(CHAT)
    disk = tier(tmp_path / "prompts", cache)
    disk.save(60)
    cache.keep([1] * 100, state([1] * 100))
    disk.save(60)
    (line,) = caplog.records
    assert "no states of prompts are written" in line.getMessage()


def test_a_folder_that_is_removed_while_a_state_is_written_is_made_anew(tmp_path: Path) -> None:
    """The state under way is lost; the next is written."""
    cache = cache_of(list(range(PIECE_BYTES // 32)))
    disk = tier(tmp_path / "prompts", cache, write_after_s=0)
    for _ in range(3):
        disk.rest()
    shutil.rmtree(tmp_path / "prompts")
    disk.save(60)
    assert files_of(tmp_path) == []
    cache.keep(CHAT, state(CHAT))
    disk.save(60)
    assert ".safetensors" in files_of(tmp_path)


def test_a_full_disk_leaves_no_half_of_a_state_and_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It fills up in the middle of a write, which the look at its free space could not know."""
    cache = cache_of(list(range(PIECE_BYTES // 32)))
    disk = tier(tmp_path, cache, write_after_s=0)
    for _ in range(3):
        disk.rest()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1024, limit[1]))
        disk.save(60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    (line,) = caplog.records
    assert "no states of prompts are written" in line.getMessage()
    assert files_of(tmp_path) == []


def test_what_a_killed_server_left_of_another_model_goes_when_a_model_is_loaded(tmp_path: Path) -> None:
    """That model may never be loaded again, and half a state would count for ever."""
    half = tmp_path / "of-another-model" / f"{'0' * NAME_DIGITS}.1-2.partial"
    half.parent.mkdir()
    half.write_bytes(bytes(1000))
    tier(tmp_path, PromptCache(MB))
    assert files_of(tmp_path) == []


def test_a_link_that_leads_nowhere_does_not_hide_the_states_beside_it(tmp_path: Path) -> None:
    """Nor does one that has gone between two looks, which it stands for here."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    (tmp_path / KEY / f"{'0' * NAME_DIGITS}.safetensors").symlink_to(tmp_path / "nowhere")
    assert found(tier(tmp_path, PromptCache(MB)), [*CHAT, 1]) == CHAT


def test_a_state_that_no_file_can_hold_is_left_out_with_a_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One of a cache with something else than arrays and numbers."""
    caplog.set_level("INFO")
    strange = ArraysCache(1)
    strange[0] = state(CHAT)[0].keys
    strange.lengths = {"a": 1}
    cache = PromptCache(MB)
    cache.keep(CHAT, [strange])
    tier(tmp_path, cache).save(60)
    assert "not written to disk" in caplog.text
    assert files_of(tmp_path) == []


def test_what_is_in_memory_already_is_not_read(tmp_path: Path) -> None:
    """Nor is what has no room there."""
    tier(tmp_path, cache_of(CHAT)).save(60)
    assert tier(tmp_path, cache_of(CHAT)).find(np.asarray([*CHAT, 1]), 64 * MB) is None
    cold = tier(tmp_path, PromptCache(MB))
    needed = 2 * 2 * len(CHAT) * 2 * 4 * 4
    assert found(cold, [*CHAT, 1], needed - 1) == []
    assert found(cold, [*CHAT, 1], needed) == CHAT


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(1, 400), st.booleans()), max_size=15), st.integers(1, 60_000))
def test_whatever_happens_the_bytes_are_bounded_and_what_is_found_is_right(
    turns: list[tuple[int, int, bool]], max_bytes: int
) -> None:
    """Conversations of several lives of a model: never more bytes than may be, and never a token that was not asked."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder, cache = Path(name), PromptCache(MB)
        disk = tier(folder, cache, max_bytes=max_bytes)
        for chat, length, restarts in turns:
            tokens = [1000 * chat + at for at in range(length)]
            if restarts:
                disk.save(60)
                cache = PromptCache(MB)
                disk = tier(folder, cache, max_bytes=max_bytes)
            read = found(disk, tokens)
            assert read == tokens[: len(read)]
            cache.keep(tokens, state(tokens))
            disk.save(60)
            assert sum(file.nbytes for file in kept_files(folder)) <= max_bytes
            assert disk.use.num_bytes <= max_bytes
        assert new_caches()[0].empty()
        assert KEY in repr(disk)
