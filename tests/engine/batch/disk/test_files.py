"""The folder of states: bounded at every moment, private, and clean after a kill."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import shutil
import signal
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.batch.disk.files import (
    MIN_FREE_BYTES,
    NAME_DIGITS,
    SET_ASIDE,
    SUFFIX,
    PartialFile,
    clear,
    kept_files,
    make_private,
    make_room,
    reserve,
    sweep,
)


def named(word: str, suffix: str = SUFFIX) -> str:
    """A name that a state could have."""
    return f"{word.encode().hex():0>{NAME_DIGITS}}{suffix}"


def put(root: Path, name: str, num_bytes: int, used_at: int) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(num_bytes))
    os.utime(path, (used_at, used_at))
    return path


def test_the_least_recently_used_goes_first_whichever_model_it_is_of(tmp_path: Path) -> None:
    """But for files that could not be used, which go before all others."""
    old = put(tmp_path, f"b/{named('old')}", 40, 1)
    new = put(tmp_path, f"a/{named('new')}", 40, 3)
    aside = put(tmp_path, f"a/{named('broken', SET_ASIDE)}", 40, 9)
    assert [file.path for file in kept_files(tmp_path)] == [aside, old, new]
    assert make_room(tmp_path, 100, 50)
    assert [file.path for file in kept_files(tmp_path)] == [new]


def test_nothing_is_removed_for_what_can_never_fit(tmp_path: Path) -> None:
    """A state that is larger than all files may be leaves the others alone, as does one that would fill the volume."""
    put(tmp_path, f"a/{named('one')}", 40, 1)
    assert not make_room(tmp_path, 100, 101)
    assert not make_room(tmp_path, 2**62, 2**61)
    assert len(kept_files(tmp_path)) == 1
    assert MIN_FREE_BYTES > 0


def test_room_on_the_volume_is_promised_once(tmp_path: Path) -> None:
    """A file that is being written takes no room yet, but will."""
    make_private(tmp_path / "a")
    num_bytes = (shutil.disk_usage(tmp_path).free - MIN_FREE_BYTES) * 3 // 5
    if num_bytes <= 0:
        pytest.skip("the volume is nearly full")
    first = reserve(tmp_path, tmp_path / "a" / named("one"), num_bytes, max_bytes=2**62)
    assert first is not None
    assert not make_room(tmp_path, 2**62, num_bytes)
    first.discard()
    assert make_room(tmp_path, 2**62, num_bytes)


def test_a_file_that_is_swept_away_before_it_is_locked_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another server that starts looks at it in that moment."""
    swept: list[int] = []
    lock = fcntl.flock

    def after_the_sweeper(file: int, operation: int) -> None:
        if not swept:
            swept.append(os.open(next(tmp_path.iterdir()), os.O_RDONLY))
            lock(swept[0], fcntl.LOCK_EX)
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", after_the_sweeper)
    with pytest.raises(FileNotFoundError):
        PartialFile(tmp_path / named("one"), 10)
    assert list(tmp_path.iterdir()) == []
    os.close(swept[0])


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 60), st.booleans()), max_size=30), st.integers(10, 150))
def test_files_never_take_more_than_their_bound(writes: list[tuple[int, int, bool]], max_bytes: int) -> None:
    """From the moment that one is begun, with those that are being written at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "prompts"
        under_way: list[tuple[int, PartialFile]] = []
        for number, (model, num_bytes, ends_now) in enumerate(writes):
            home = root / str(model)
            make_private(root)
            make_private(home)
            partial = reserve(root, home / named(str(number)), num_bytes, max_bytes=max_bytes)
            assert sum(file.nbytes for file in kept_files(root)) <= max_bytes
            if partial is None:
                assert num_bytes + sum(each for each, _ in under_way) > max_bytes
                continue
            if ends_now:
                partial.commit()
            else:  # two at a time at most: one for each thread
                for _, other in under_way:
                    other.discard()
                under_way = [(num_bytes, partial)]
        for _, partial in under_way:
            partial.discard()
        assert all(file.may_go for file in kept_files(root))


def test_prompts_are_private(tmp_path: Path) -> None:
    """Nobody else of this machine can look into a file or list its folder, not even while it is written."""
    folder = tmp_path / "prompts"
    make_private(folder)
    partial = reserve(tmp_path, folder / named("a"), 10, max_bytes=100)
    assert partial is not None
    (written,) = folder.iterdir()
    assert (stat.S_IMODE(folder.stat().st_mode), stat.S_IMODE(written.stat().st_mode)) == (0o700, 0o600)
    partial.commit()
    (whole,) = folder.iterdir()
    assert (whole.name, stat.S_IMODE(whole.stat().st_mode)) == (named("a"), 0o600)


def _write_for_ever(folder: str, begun: multiprocessing.synchronize.Event) -> None:
    held = reserve(Path(folder), Path(folder) / "model" / named("a"), 10, max_bytes=100)
    assert held is not None
    begun.set()
    signal.pause()


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    """A half written file is known by its lock, which goes with its process."""
    make_private(tmp_path / "model")
    spawn = multiprocessing.get_context("spawn")
    begun = spawn.Event()
    process = spawn.Process(target=_write_for_ever, args=(str(tmp_path), begun))
    process.start()
    try:
        assert begun.wait(120)
        sweep(tmp_path)
        assert len(list((tmp_path / "model").iterdir())) == 1
    finally:
        process.kill()
        process.join(60)
    sweep(tmp_path)
    assert list((tmp_path / "model").iterdir()) == []


def test_a_clear_removes_all_states_of_all_models(tmp_path: Path) -> None:
    """And nothing that is no state."""
    put(tmp_path, f"a/{named('one')}", 40, 1)
    put(tmp_path, f"b/{named('two', SET_ASIDE)}", 2, 1)
    other = put(tmp_path, "b/notes.txt", 1, 1)
    assert clear(tmp_path) == (2, 42)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [other]
    assert clear(tmp_path / "missing") == (0, 0)


def test_what_is_no_state_is_never_removed(tmp_path: Path) -> None:
    """Somebody names a folder of models, or links to one: their weights do not count and stay where they are."""
    states = tmp_path / "states"
    weights = put(tmp_path, "models/model.safetensors", 40, 1)
    digest = put(tmp_path, f"models/{named('one')}", 40, 1)
    others = [put(states, f"a/{name}", 40, 1) for name in ("model-00001-of-00002.safetensors", "adapters.safetensors")]
    (states / "linked").symlink_to(tmp_path / "models")
    (states / "a" / named("linked")).symlink_to(weights)
    (states / "a" / named("folder")).mkdir()
    os.mkfifo(states / "a" / named("pipe"))
    state = put(states, f"a/{named('one')}", 40, 1)
    assert [file.path for file in kept_files(states)] == [state]
    assert make_room(states, 10)
    put(states, f"a/{named('two')}", 40, 1)
    assert clear(states) == (1, 40)
    assert all(path.exists() for path in (weights, digest, *others, states / "a" / named("linked")))


def test_a_clear_removes_what_a_killed_process_left(tmp_path: Path) -> None:
    """Of whatever model; what is being written now is left alone."""
    make_private(tmp_path / "a")
    held = reserve(tmp_path, tmp_path / "a" / named("held"), 10, max_bytes=100)
    put(tmp_path, f"b/{named('left', '.1-2.partial')}", 40, 1)
    assert held is not None
    clear(tmp_path)
    (left,) = kept_files(tmp_path)
    assert not left.may_go
    held.discard()
