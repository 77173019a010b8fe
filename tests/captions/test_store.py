"""CaptionStore and the cache over it: restarts, kills, full disks, and who waits for what."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from periscope.captions.cache import CaptionCache
from periscope.captions.kept import num_bytes_of
from periscope.captions.store import CaptionStore, StoreState
from tests.captions.keeping import TIMEOUT_S, kept, loaded, query, started, wrote
from tests.captions.test_cache import Maker, texts
from tests.vision.fakes import HandExecutor, run, settled

#: Keeps captions as fast as it can, and says of each when it is on disk, until it is killed.
KEEPS_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from periscope.captions.store import CaptionStore
from tests.captions.keeping import kept

async def main():
    store = CaptionStore(Path(sys.argv[1]))
    await store.load(2**30)
    for n in range(100_000):
        store.put(kept(f"{sys.argv[2]} {n}", "x" * 2000, at=float(n)))
        if n % 3 == 0 and await store.written():
            print(n, flush=True)

asyncio.run(main())
"""

#: Keeps captions on a disk that holds no more than 100 KB, then on one that has room again.
KEEPS_ON_A_FULL_DISK = """
import asyncio, logging, resource, sys
from pathlib import Path
from periscope.captions.cache import CaptionCache
from periscope.captions.caption import Caption
from periscope.captions.store import CaptionStore

async def make(keys, tell):
    return [Caption("x" * 5000, 1) for _ in keys]

async def main():
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(levelname)s %(message)s")
    store = CaptionStore(Path(sys.argv[1]))
    cache = CaptionCache(store=store)
    await cache.loaded()
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    for n in range(60):
        await cache.get_or_caption([f"full {n}"], make)
        await store.written()
    print("STATE", store.state, len(cache.kept))
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await cache.get_or_caption(["room"], make)
    await store.written()
    print("STATE", store.state, len(cache.kept))
    await cache.close()

asyncio.run(main())
"""


def with_cache(path: Path, use: Callable[[CaptionCache], Awaitable[None]], max_bytes: int = 2**20) -> None:
    """One life of a server with a file."""

    async def life() -> None:
        cache = CaptionCache(max_bytes=max_bytes, store=CaptionStore(path))
        await cache.loaded()
        await use(cache)
        await cache.close()

    run(life())


def test_a_restart_loses_no_caption(tmp_path: Path) -> None:
    """What one process made the next one has, without asking the captioner, and knows what was used last."""
    make = Maker()

    async def first(cache: CaptionCache) -> None:
        await cache.get_or_caption(["a", "b", "c"], make)
        await cache.get_or_caption(["a"], make)

    async def second(cache: CaptionCache) -> None:
        assert texts(await cache.get_or_caption(["c", "a", "b"], make)) == ["about c", "about a", "about b"]
        assert (cache.stats.num_hits, cache.stats.num_misses) == (3, 0)

    path = tmp_path / "captions.sqlite3"
    with_cache(path, first)
    assert list(loaded(path))[-1] == "a"
    with_cache(path, second)
    assert make.calls == [("a", "b", "c")]


def test_the_least_recently_used_go_first_across_restarts(tmp_path: Path) -> None:
    """The bound holds for the file, and a use in an earlier life counts."""
    path, make, room = tmp_path / "captions.sqlite3", Maker(), 2 * num_bytes_of(1, len("about a"))

    async def first(cache: CaptionCache) -> None:
        for key in ("a", "b", "a"):
            await cache.get_or_caption([key], make)

    async def second(cache: CaptionCache) -> None:
        await cache.get_or_caption(["c"], make)
        assert cache.missing(["a", "b", "c"]) == ("b",)

    with_cache(path, first, room)
    with_cache(path, second, room)
    assert sorted(loaded(path)) == ["a", "c"]


def test_failures_are_not_written(tmp_path: Path) -> None:
    """What could not be described is tried again after a restart as well."""
    path, make = tmp_path / "captions.sqlite3", Maker(fails=True)

    async def fail(cache: CaptionCache) -> None:
        await cache.get_or_caption(["a"], make)

    with_cache(path, fail)
    assert loaded(path) == {}


def test_requests_wait_for_the_captions_of_an_earlier_process(tmp_path: Path) -> None:
    """So that a prompt after a restart is the prompt before it; once they are there nobody waits any more."""
    path = tmp_path / "captions.sqlite3"
    wrote(path, kept("a"))
    executor = HandExecutor()

    async def test() -> None:
        cache = CaptionCache(store=CaptionStore(path, executor=executor))
        waiting = asyncio.create_task(cache.loaded())
        await settled()
        assert not waiting.done()
        executor.run_waiting()
        await waiting
        assert cache.missing(["a"]) == ()
        with pytest.raises(StopIteration):  # it ends without an await
            cache.loaded().send(None)
        closing = asyncio.create_task(cache.close())
        await settled()
        executor.run_waiting()
        await closing

    run(test())


def test_a_disk_that_hangs_makes_no_request_late(tmp_path: Path) -> None:
    """After the deadline captions are made anew. Those that come at last are of use, beside what was made meanwhile."""
    path, make = tmp_path / "captions.sqlite3", Maker()
    wrote(path, kept("a", "old"), kept("b", "old"))
    executor = HandExecutor()

    async def test() -> None:
        cache = CaptionCache(store=CaptionStore(path, executor=executor), load_timeout_s=0.0)
        await cache.loaded()
        assert texts(await cache.get_or_caption(["a"], make)) == ["about a"]
        executor.run_waiting()
        await settled()
        assert texts(await cache.get_or_caption(["a", "b"], make)) == ["about a", "old"]
        closing = asyncio.create_task(cache.close())
        await settled()
        executor.run_waiting()
        await closing

    run(test())


def test_a_flush_while_captions_are_read_forgets_them_too(tmp_path: Path) -> None:
    """They do not come back from the file that is being emptied."""
    path = tmp_path / "captions.sqlite3"
    wrote(path, kept("a"))
    executor = HandExecutor()

    async def test() -> None:
        cache = CaptionCache(store=CaptionStore(path, executor=executor))
        cache.start_loading()
        await settled()
        cache.flush()
        executor.run_waiting()
        await cache.loaded()
        assert cache.missing(["a"]) == ("a",)
        closing = asyncio.create_task(cache.close())
        await settled()
        executor.run_waiting()
        await closing

    run(test())
    assert loaded(path) == {}


def test_changes_that_come_during_a_write_are_written_together(tmp_path: Path) -> None:
    """One transaction for many captions, the last word on each, and uses of captions that are still to be written."""
    executor = HandExecutor()
    store = CaptionStore(tmp_path / "captions.sqlite3", executor=executor)
    for n in range(100):
        store.put(kept(f"key {n}"))
    store.drop("key 1")
    store.touch("key 2", 77.0)
    assert store.num_unwritten == 100
    assert executor.run_waiting() == 1
    assert store.num_unwritten == 0
    found = query(store.path, "SELECT key FROM captions ORDER BY used_at DESC")
    assert (len(found), found[0]) == (99, ("key 2",))
    store.clear()
    store.put(kept("new"))
    assert executor.run_waiting() == 1
    store._close()
    assert loaded(store.path) == {"new": "about new"}


@pytest.mark.parametrize("num_processes", [1, 2])
def test_a_kill_loses_at_most_what_was_not_written(num_processes: int, tmp_path: Path) -> None:
    """Killed in the middle of writing, alone or beside another writer: all that was reported written is there."""
    path = tmp_path / "captions.sqlite3"
    processes = [started(KEEPS_UNTIL_KILLED, str(path), str(number)) for number in range(num_processes)]
    written = []
    for process in processes:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(25)]
        process.send_signal(signal.SIGKILL)
        process.wait(TIMEOUT_S)
        written.append(int((lines + process.stdout.read().split("\n")[:-1])[-1]))
        process.stdout.close()
    found = loaded(path, max_bytes=2**30)
    for number, last in enumerate(written):
        assert {f"{number} {n}" for n in range(last + 1)} <= set(found)
    assert set(found.values()) == {"x" * 2000}
    assert query(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_full_disk_is_one_warning_and_passes(tmp_path: Path) -> None:
    """Captions go on in memory, nothing is asked twice; with room on the disk, all of them are written."""
    path = tmp_path / "captions.sqlite3"
    process = started(KEEPS_ON_A_FULL_DISK, str(path))
    output, _ = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert output.count("WARNING") == 1
    assert "cannot be written" in output
    assert [line for line in output.splitlines() if "STATE" in line] == ["STATE failing 60", "STATE open 61"]
    assert len(loaded(path)) == 61


def test_a_place_where_no_file_can_be_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A path through a file, as a folder without rights: captions are kept in memory, and the state says so."""
    (tmp_path / "file").write_text("")
    make = Maker()

    async def use(cache: CaptionCache) -> None:
        await cache.get_or_caption(["a"], make)
        await cache.get_or_caption(["a"], make)
        assert cache.stats.state is StoreState.OFF
        assert not (await cache.flush_to_disk()).is_written

    with caplog.at_level(logging.INFO):
        with_cache(tmp_path / "file" / "captions.sqlite3", use)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "in memory only" in caplog.text
    assert make.calls == [("a",)]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_rights_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a place where no file can be."""
    tmp_path.chmod(0o500)

    async def use(cache: CaptionCache) -> None:
        assert cache.stats.state is StoreState.OFF

    with_cache(tmp_path / "captions.sqlite3", use)
    tmp_path.chmod(0o700)
    assert len(caplog.records) == 1


def test_damage_that_shows_while_writing_ends_the_writing_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One warning; the next start sets the file aside and begins anew."""
    path, make = tmp_path / "captions.sqlite3", Maker()

    async def use(cache: CaptionCache) -> None:
        await cache.get_or_caption(["a"], make)
        assert (await cache.flush_to_disk()).is_written
        query(path, "DROP TABLE captions")
        await cache.get_or_caption(["b"], make)
        assert not (await cache.flush_to_disk()).is_written
        assert cache.stats.state is StoreState.OFF
        assert texts(await cache.get_or_caption(["c"], make)) == ["about c"]

    async def again(cache: CaptionCache) -> None:
        assert cache.stats.state is StoreState.OPEN

    with_cache(path, use)
    assert len(caplog.records) == 1
    with_cache(path, again)


def test_a_flush_is_not_late_because_captions_are_made_after_it(tmp_path: Path) -> None:
    """What comes after a flush may still be on its way to the disk when the flush is told to be there."""
    path, make, executor = tmp_path / "captions.sqlite3", Maker(), HandExecutor()

    async def test() -> None:
        cache = CaptionCache(store=CaptionStore(path, executor=executor))
        cache.start_loading()
        await settled()
        executor.run_waiting()
        flushing = asyncio.create_task(cache.flush_to_disk())
        await settled()
        executor.run_waiting()
        await cache.get_or_caption(["a"], make)
        assert (await flushing).is_written
        assert cache.stats.num_unwritten == 1
        closing = asyncio.create_task(cache.close())
        await settled()
        executor.run_waiting()
        await closing

    run(test())
    assert loaded(path) == {"a": "about a"}


def test_after_the_end_captions_stay_usable(tmp_path: Path) -> None:
    """A request that outlives the file is answered from memory; closing twice is closing once."""
    path, make = tmp_path / "captions.sqlite3", Maker()

    async def use(cache: CaptionCache) -> None:
        await cache.get_or_caption(["a"], make)
        await cache.close()
        assert texts(await cache.get_or_caption(["a", "b"], make)) == ["about a", "about b"]
        assert cache.stats.state is StoreState.CLOSED

    with_cache(path, use)
    assert loaded(path) == {"a": "about a"}


def test_a_cache_that_was_never_used_makes_no_file(tmp_path: Path) -> None:
    """Closing it does not open it."""

    async def life() -> None:
        cache = CaptionCache(store=CaptionStore(tmp_path / "captions.sqlite3"))
        await cache.close()

    run(life())
    assert list(tmp_path.iterdir()) == []
