"""Downloads of a running server, over a hub that is real HTTP, or a pull that waits for the test."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from periscope.errors import DownloadConflict, DownloadNotFound, HubError, ServerBusy
from periscope.events import DownloadChanged, Event
from periscope.hub import Downloads, Hub, JobFile, PullProgress, PullStatus, complete_snapshot
from periscope.hub.download import OnProgress
from periscope.hub.downloads import MAX_ENDED, MAX_UNFINISHED
from periscope.hub.transfer import PullStopped
from periscope.status import DownloadStatus
from tests.hub.fake_hub import FILES, MODEL, WEIGHTS, FakeHub

PATIENCE_S = 60


class Watcher:
    """Hears of every change and lets a test wait for the one that it wants."""

    def __init__(self) -> None:
        self._news = asyncio.Event()
        self.num_told = 0

    def publish(self, event: Event) -> None:
        assert isinstance(event, DownloadChanged)
        self.num_told += 1
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self._news.clear()
                await self._news.wait()


@dataclass
class HandPull:
    """A pull whose every call waits until the test ends it: by its stop, an error, or `done`."""

    calls: list[str] = field(default_factory=list)
    done: threading.Event = field(default_factory=threading.Event)
    error: Exception | None = None

    def __call__(
        self, hub_id: str, _revision: str | None, /, *, on_progress: OnProgress, stop: threading.Event, **_: object
    ) -> Path:
        self.calls.append(hub_id)
        on_progress(PullProgress(hub_id, PullStatus.PLANNING))
        on_progress(PullProgress(hub_id, PullStatus.DOWNLOADING, 1000, 250))
        while not self.done.wait(0.001):
            if stop.is_set():
                raise PullStopped
        if self.error is not None:
            raise self.error
        on_progress(PullProgress(hub_id, PullStatus.DONE, 1000, 1000))
        return Path(hub_id)


@dataclass
class World:
    """Downloads with their watcher and pull."""

    watcher: Watcher
    pull: HandPull
    downloads: Downloads

    def state(self, download: DownloadStatus) -> str:
        return self.downloads.status(download.id).state

    async def until(self, download: DownloadStatus, state: str) -> None:
        await self.watcher.until(lambda: self.state(download) == state)


def with_world(use: Callable[[World], Awaitable[None]], *, file: JobFile | None = None, hub: Hub = Hub()) -> None:
    async def run() -> None:
        watcher, pull = Watcher(), HandPull()
        downloads = Downloads(watcher.publish, file=file, fetch=pull, hub=hub)
        await downloads.restore()
        try:
            await use(World(watcher, pull, downloads))
        finally:
            await downloads.close()

    asyncio.run(run())


def test_a_download_is_paused_survives_a_restart_and_goes_on_where_it_was(
    fake: FakeHub, hub: Hub, tmp_path: Path
) -> None:
    """What has arrived is asked for only once, whichever process asked."""
    file = JobFile(tmp_path / "state" / "downloads.json")

    async def first_life() -> str:
        watcher = Watcher()
        downloads = Downloads(watcher.publish, file=file, hub=hub)
        await downloads.restore()
        fake.hold_after[WEIGHTS] = 1_500_000
        started = downloads.start(MODEL, None)
        await watcher.until(lambda: downloads.status(started.id).completed_bytes > 1_000_000)
        joined = downloads.start(MODEL, None)
        assert (joined.id, joined.state, downloads.is_active) == (started.id, "downloading", True)
        downloads.pause(started.id)
        fake.release.set()
        await watcher.until(lambda: downloads.status(started.id).state == "paused")
        assert not downloads.is_active
        await downloads.close()
        return started.id

    async def second_life(download_id: str) -> None:
        watcher = Watcher()
        downloads = Downloads(watcher.publish, file=file, hub=hub)
        await downloads.restore()
        assert downloads.status(download_id).state == "paused"
        assert downloads.start(MODEL, None).id == download_id
        await watcher.until(lambda: downloads.status(download_id).state == "completed")
        ended = downloads.status(download_id)
        assert ended.completed_bytes == ended.total_bytes == sum(map(len, FILES.values()))
        await downloads.close()

    download_id = asyncio.run(first_life())
    fake.hold_after.clear()
    asyncio.run(second_life(download_id))
    assert complete_snapshot(MODEL, hub=hub) is not None
    first, *later = fake.sent_of(WEIGHTS)
    assert first == 0
    assert later
    assert min(later) >= 1_000_000
    assert file.read() == []


def test_what_was_under_way_at_a_stop_goes_on_by_itself_and_what_was_paused_does_not(tmp_path: Path) -> None:
    """A stop of the server is no pause."""
    file = JobFile(tmp_path / "downloads.json")

    async def stopped(world: World) -> None:
        running, waiting = (world.downloads.start(f"o/{name}", "v1") for name in ("running", "waiting"))
        world.downloads.pause(world.downloads.start("o/paused", None).id)
        await world.until(running, "downloading")
        assert world.state(waiting) == "queued"

    async def started(world: World) -> None:
        assert {each.model: each.state for each in world.downloads.all()} == {
            "o/running": "downloading",
            "o/waiting": "queued",
            "o/paused": "paused",
        }
        assert world.downloads.all()[0].revision == "v1"
        world.pull.done.set()
        await world.watcher.until(lambda: not world.downloads.is_active)
        assert world.pull.calls == ["o/running", "o/waiting"]

    with_world(stopped, file=file)
    with_world(started, file=file)


def test_what_has_failed_keeps_its_error_over_a_restart(tmp_path: Path) -> None:
    """Nobody takes it for one that was paused on purpose; it goes on when it is asked for."""
    file = JobFile(tmp_path / "downloads.json")

    async def failed(world: World) -> None:
        world.pull.error = HubError("The hub is away.")
        world.pull.done.set()
        await world.until(world.downloads.start("o/model", None), "failed")

    async def started(world: World) -> None:
        (kept,) = world.downloads.all()
        assert (kept.state, kept.error) == ("failed", "The hub is away.")
        assert world.downloads.start("o/model", None).id == kept.id
        world.pull.done.set()
        await world.until(kept, "completed")

    with_world(failed, file=file)
    with_world(started, file=file)


def test_one_is_fetched_at_a_time_in_order() -> None:
    """A paused one lets the next go first, and comes behind it when it is resumed."""

    async def use(world: World) -> None:
        first, second = world.downloads.start("o/first", None), world.downloads.start("o/second", None)
        await world.until(first, "downloading")
        world.downloads.pause(first.id)
        await world.until(second, "downloading")
        assert world.state(first) == "paused"
        world.downloads.resume(first.id)
        assert world.state(first) == "queued"
        world.pull.done.set()
        await world.until(first, "completed")
        assert world.pull.calls == ["o/first", "o/second", "o/first"]

    with_world(use)


def test_one_that_is_resumed_before_it_has_stopped_goes_on(fake: FakeHub, hub: Hub) -> None:
    """Pause and resume in one breath."""

    async def run() -> None:
        watcher = Watcher()
        downloads = Downloads(watcher.publish, hub=hub)
        fake.hold_after[WEIGHTS] = 1_500_000
        started = downloads.start(MODEL, None)
        await watcher.until(lambda: downloads.status(started.id).completed_bytes > 1_000_000)
        downloads.pause(started.id)
        assert downloads.start(MODEL, None).id == started.id
        fake.hold_after.clear()
        fake.release.set()
        await watcher.until(lambda: downloads.status(started.id).state == "completed")
        await downloads.close()

    asyncio.run(run())


def test_a_cancelled_download_leaves_no_parts(fake: FakeHub, hub: Hub) -> None:
    """Whole files stay: another model may share the cache, and a new pull finds them."""

    async def run() -> None:
        watcher = Watcher()
        downloads = Downloads(watcher.publish, hub=hub)
        fake.hold_after[WEIGHTS] = 1_500_000
        started = downloads.start(MODEL, None)
        await watcher.until(lambda: downloads.status(started.id).completed_bytes > 1_000_000)
        downloads.cancel(started.id)
        fake.release.set()
        await watcher.until(lambda: downloads.status(started.id).state == "cancelled")
        await downloads.close()
        with pytest.raises(DownloadConflict, match="is cancelled, so it cannot be resumed"):
            downloads.resume(started.id)

    asyncio.run(run())
    assert not list(hub.folder.rglob("*.incomplete"))
    assert list(hub.folder.rglob("config.json"))


def test_a_failure_is_told_and_can_be_tried_again() -> None:
    """With the reason as `pull` tells it; a fault of ours does not end the others."""

    async def use(world: World) -> None:
        world.pull.error = HubError("The disk is full.")
        world.pull.done.set()
        failed = world.downloads.start("o/big", None)
        await world.until(failed, "failed")
        assert world.downloads.status(failed.id).error == "The disk is full."
        world.pull.error = ValueError("odd")
        assert world.downloads.start("o/big", None).id == failed.id
        await world.watcher.until(lambda: world.downloads.status(failed.id).error == "ValueError: odd")
        world.pull.error = None
        world.downloads.resume(failed.id)
        await world.until(failed, "completed")
        assert world.downloads.status(failed.id).error is None

    with_world(use)


def test_what_cannot_be_done_is_said() -> None:
    """No such download, or one whose state does not allow it."""

    async def use(world: World) -> None:
        running = world.downloads.start("o/m", None)
        await world.until(running, "downloading")
        with pytest.raises(DownloadConflict, match="is downloading, so it cannot be resumed"):
            world.downloads.resume(running.id)
        with pytest.raises(DownloadNotFound):
            world.downloads.pause("dl-none")
        world.pull.done.set()
        await world.until(running, "completed")
        for command in (world.downloads.pause, world.downloads.resume, world.downloads.cancel):
            with pytest.raises(DownloadConflict, match="is completed"):
                command(running.id)

    with_world(use)


def test_the_lists_are_bounded() -> None:
    """So many may wait, and so many ended ones are remembered."""

    async def use(world: World) -> None:
        for number in range(MAX_UNFINISHED):
            world.downloads.start(f"o/m{number}", None)
        with pytest.raises(ServerBusy, match="unfinished"):
            world.downloads.start("o/more", None)
        for each in world.downloads.all()[1:]:
            world.downloads.cancel(each.id)
        more = [world.downloads.start(f"o/n{number}", None) for number in range(4)]
        world.pull.done.set()
        await world.until(more[-1], "completed")
        assert len(world.downloads.all()) == MAX_ENDED

    with_world(use)


def test_speed_and_time_left_are_known_only_while_it_moves() -> None:
    """A rate that is not measured yet is None, and so is that of a download that stands."""

    async def use(world: World) -> None:
        now = [0.0]
        downloads = Downloads(world.watcher.publish, fetch=self_told, clock=lambda: now[0])
        started = downloads.start("o/m", None)

        def has_completed(num_bytes: int) -> bool:
            return downloads.status(started.id).completed_bytes == num_bytes

        for second, completed in ((0.0, 100), (1.0, 300), (2.0, 500)):
            now[0] = second
            told.put(PullProgress("o/m", PullStatus.DOWNLOADING, 1000, completed))
            await world.watcher.until(partial(has_completed, completed))
        status = downloads.status(started.id)
        assert (status.bytes_per_s, status.eta_s, status.total_bytes) == (200.0, 2.5, 1000)
        now[0] = 60.0
        assert (downloads.status(started.id).bytes_per_s, downloads.status(started.id).eta_s) == (None, None)
        told.put(None)
        await world.watcher.until(lambda: downloads.status(started.id).state == "completed")
        assert (downloads.status(started.id).bytes_per_s, downloads.status(started.id).eta_s) == (None, None)

    told: queue.SimpleQueue[PullProgress | None] = queue.SimpleQueue()

    def self_told(_hub_id: str, _revision: str | None, /, *, on_progress: OnProgress, **_: object) -> Path:
        while (progress := told.get()) is not None:
            on_progress(progress)
        return Path()

    with_world(use)


@pytest.mark.parametrize("text", ["", "{", "{}", '[{"id": 1}]', "[1]", '[{"oops": 1}]'])
def test_a_file_of_jobs_that_is_damaged_is_none(tmp_path: Path, text: str) -> None:
    """A pull can be asked for again, and what has arrived is in the cache."""
    file = tmp_path / "downloads.json"
    file.write_text(text)

    async def use(world: World) -> None:
        assert world.downloads.all() == ()

    with_world(use, file=JobFile(file))
