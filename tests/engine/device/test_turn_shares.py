"""How the device's time is shared, on a simulated clock without threads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.device.turn import View, next_turn, owed_after

#: A simulation that is not through by then goes in circles.
MAX_EVENTS = 500_000


@dataclass(eq=False)
class Worker:
    """A simulated worker: for each piece of work, how long it is away before and how long it holds the turn."""

    is_background: bool
    pieces: Iterator[tuple[float, float]]
    arrives_at: float = 0.0
    piece_s: float = 0.0
    used_s: float = 0.0
    turns: list[tuple[float, float]] = field(default_factory=list)

    def plan(self, now: float) -> None:
        away_s, self.piece_s = next(self.pieces, (float("inf"), 0.0))
        self.arrives_at = now + away_s


@dataclass
class Device:
    """A simulated device under the rules of `next_turn` and `owed_after`; the foreground is active until `until`."""

    share: float
    workers: list[Worker]
    until: float = float("inf")
    now: float = 0.0
    owed_s: float = 0.0
    queue: list[Worker] = field(default_factory=list)
    holder: Worker | None = None
    ends_at: float = 0.0

    def view(self) -> View:
        waiting = tuple(worker.is_background for worker in self.queue)
        holder = self.holder.is_background if self.holder else None
        return View(waiting, holder, self.now < self.until, self.owed_s)

    def run(self, duration_s: float) -> Iterator[None]:
        """Process one event: a worker arrives or leaves, or the owed time has passed."""
        for worker in self.workers:
            worker.plan(0.0)
        for _ in range(MAX_EVENTS):
            if self.now >= duration_s:
                return
            self._advance(min(self._events()))
            if self.holder is not None and self.ends_at <= self.now:
                self.holder.plan(self.now)
                self.holder = None
            for worker in self.workers:
                if worker is not self.holder and worker not in self.queue and worker.arrives_at <= self.now:
                    self.queue.append(worker)
            self._grant()
            yield
        raise AssertionError("time stands still")

    def _events(self) -> Iterator[float]:
        yield from (w.arrives_at for w in self.workers if w is not self.holder and w not in self.queue)
        if self.holder is not None:
            yield self.ends_at
        elif self.queue:
            yield self.now + max(self.owed_s, 1e-9)  # a float that is too small to add would stop the time
        if self.now < self.until:
            yield self.until

    def _advance(self, when: float) -> None:
        elapsed_s, self.owed_s = when - self.now, owed_after(self.view(), when - self.now, self.share)
        if self.holder is not None:
            self.holder.used_s += elapsed_s
        self.now = when

    def _grant(self) -> None:
        chosen = next_turn(self.view())
        if chosen is not None:
            self.holder = self.queue.pop(chosen)
            self.ends_at = self.now + self.holder.piece_s
            self.holder.turns.append((self.now, self.ends_at))


def text(piece_s: float = 0.02, away_s: float = 0.0) -> Worker:
    return Worker(is_background=False, pieces=itertools.repeat((away_s, piece_s)))


def captioner(piece_s: float = 0.5) -> Worker:
    return Worker(is_background=True, pieces=itertools.repeat((0.0, piece_s)))


def test_text_keeps_its_share_of_the_device() -> None:
    """Beside images of half a second each, decode steps of 20 ms get three quarters of the time, and never less."""
    decode, images = text(), captioner()
    device = Device(0.25, [decode, images])
    for _ in device.run(120):
        assert images.used_s <= 0.25 * device.now + 0.75 * 0.5 + 1e-6
    assert decode.used_s / device.now == pytest.approx(0.75, abs=0.01)
    assert images.used_s / device.now == pytest.approx(0.25, abs=0.01)


def test_a_pause_between_two_steps_is_kept_for_text() -> None:
    """A decode step that comes back after 5 ms finds the device free while text is owed time."""
    decode, images = text(away_s=0.005), captioner()
    for _ in Device(0.25, [decode, images]).run(60):
        pass
    gaps = [later[0] - earlier[1] for earlier, later in itertools.pairwise(decode.turns)]
    assert len(images.turns) == pytest.approx(60 * 0.25 / 0.5, abs=1)
    assert sum(gap > 0.0051 for gap in gaps) == len(images.turns) - 1  # one image came before the first step


def test_captions_have_the_device_to_themselves_when_text_is_idle() -> None:
    """Once the last text has ended, images follow each other without a gap."""
    decode, images = Worker(is_background=False, pieces=iter([(0.0, 0.02)] * 500)), captioner()
    for _ in Device(0.25, [decode, images], until=20).run(40):
        pass
    alone = [turn for turn in images.turns if turn[0] >= 20]
    assert alone[0][0] < 20.5
    assert all(later[0] == earlier[1] for earlier, later in itertools.pairwise(alone))


@pytest.mark.parametrize("share", [0.05, 0.25, 0.95])
def test_one_huge_image_is_paid_for_once(share: float) -> None:
    """After a turn of 20 s, text gets the time that it is owed, and then the next image gets its turn."""
    decode = text()
    images = Worker(is_background=True, pieces=iter([(0.0, 20.0), (0.0, 1.0)]))
    for _ in Device(share, [decode, images]).run(20 / share + 2):
        pass
    (_, end), (start, _) = images.turns
    assert start - end == pytest.approx(20 * (1 - share) / share, abs=0.03)


def test_idleness_earns_nothing() -> None:
    """A captioner that was idle for ten minutes gets no more time than one that was not; nor does text."""
    decode = text()
    late = Worker(is_background=True, pieces=itertools.chain([(600.0, 0.5)], itertools.repeat((0.0, 0.5))))
    for _ in Device(0.25, [decode, late]).run(660):
        pass
    assert late.used_s == pytest.approx(15, abs=0.6)
    back = Worker(is_background=False, pieces=itertools.chain([(600.0, 0.02)], itertools.repeat((0.0, 0.02))))
    images = captioner()
    device = Device(0.25, [back, images], until=0.0)  # text is not active in the minutes it is away
    for _ in device.run(660):
        if device.now >= 600:
            device.until = float("inf")
    assert back.used_s == pytest.approx(45, abs=0.6)


def test_text_that_does_not_come_back_loses_its_share() -> None:
    """A foreground worker that hangs between two steps delays captions by its share of the time, not for ever."""
    gone, images = Worker(is_background=False, pieces=iter([(0.0, 0.02)])), captioner()
    device = Device(0.25, [gone, images])
    for _ in device.run(120):
        pass
    assert images.used_s / device.now == pytest.approx(0.25, abs=0.01)


SHORT = st.tuples(st.just(0.0), st.floats(0.001, 0.05))
LONG = st.tuples(st.just(0.0), st.floats(0.06, 1.0))
ANY = st.tuples(st.floats(0, 1.0), st.floats(0.001, 2.0))


def looped(is_background: bool, pieces: list[tuple[float, float]]) -> Worker:
    return Worker(is_background=is_background, pieces=itertools.cycle(pieces))


@given(
    share=st.floats(0.05, 0.95),
    foreground=st.lists(st.lists(ANY, min_size=1, max_size=4), max_size=3),
    background=st.lists(st.lists(ANY, min_size=1, max_size=4), min_size=1, max_size=3),
)
def test_captions_never_take_more_than_their_share(
    share: float, foreground: list[list[tuple[float, float]]], background: list[list[tuple[float, float]]]
) -> None:
    """However work arrives, background gets at most its share of the time with text, and a part of one turn."""
    captioners = [looped(True, pieces) for pieces in background]
    device = Device(share, [*captioners, *(looped(False, pieces) for pieces in foreground)])
    longest_s = max(piece_s for pieces in background for _, piece_s in pieces)
    for _, _ in zip(device.run(30), range(300), strict=False):
        used_s = sum(worker.used_s for worker in captioners)
        assert used_s <= share * device.now + (1 - share) * longest_s + 1e-6


@given(
    share=st.floats(0.05, 0.5),
    steps=st.lists(SHORT, min_size=1, max_size=4),
    images=st.lists(LONG, min_size=1, max_size=4),
)
def test_captions_never_get_less_than_their_share(
    share: float, steps: list[tuple[float, float]], images: list[tuple[float, float]]
) -> None:
    """A captioner that always waits is late by one decode step at most, so it never starves."""
    seeing = looped(True, images)
    device = Device(share, [looped(False, steps), seeing])
    for _, _ in zip(device.run(30), range(300), strict=False):
        assert seeing.used_s >= share * (device.now - max(step_s for _, step_s in steps)) - 1e-6
