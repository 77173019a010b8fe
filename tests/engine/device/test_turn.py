"""DeviceTurn: exclusive, in fair shares, and nobody is left waiting."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from periscope.engine.device.turn import DeviceTurn, Participant, View, next_turn, owed_after

#: A thread that is not through by then hangs.
HANGS_S = 20
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
        """One event at a time: a worker comes or goes, or what is owed has run out."""
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
    """From the moment the last text is through, images follow each other without a gap."""
    decode, images = Worker(is_background=False, pieces=iter([(0.0, 0.02)] * 500)), captioner()
    for _ in Device(0.25, [decode, images], until=20).run(40):
        pass
    alone = [turn for turn in images.turns if turn[0] >= 20]
    assert alone[0][0] < 20.5
    assert all(later[0] == earlier[1] for earlier, later in itertools.pairwise(alone))


@pytest.mark.parametrize("share", [0.05, 0.25, 0.95])
def test_one_huge_image_is_paid_for_once(share: float) -> None:
    """After a turn of 20 s text gets what stands against it, and then the next image has its turn."""
    decode = text()
    images = Worker(is_background=True, pieces=iter([(0.0, 20.0), (0.0, 1.0)]))
    for _ in Device(share, [decode, images]).run(20 / share + 2):
        pass
    (_, end), (start, _) = images.turns
    assert start - end == pytest.approx(20 * (1 - share) / share, abs=0.03)


def test_idleness_earns_nothing() -> None:
    """A captioner that was away for ten minutes gets no more of the next one than one that was not, nor does text."""
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
    """Foreground work that hangs between two steps holds captions up by its share of the time, not for ever."""
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
    """However work comes, background gets at most its share of any time with text, and a part of one turn."""
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


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_is_a_part(share: float) -> None:
    """Shares that would starve one side are refused."""
    with pytest.raises(ValueError, match="background_share"):
        DeviceTurn(share)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def start(work: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def finish(*threads: threading.Thread) -> None:
    for thread in threads:
        thread.join(HANGS_S)
        assert not thread.is_alive()


def until_waiting(turn: DeviceTurn, number: int) -> None:
    gives_up_at = time.monotonic() + HANGS_S
    while len(turn._waiting) < number:
        assert time.monotonic() < gives_up_at


def use(handle: Participant | DeviceTurn, clock: Clock, seconds: float) -> None:
    with handle.held():
        clock.now += seconds


def test_waiting_threads_get_the_turn_in_the_order_they_came() -> None:
    """A worker that comes back at once queues behind those who waited."""
    turn = DeviceTurn()
    order: list[int] = []
    threads: list[threading.Thread] = []

    def take(number: int) -> None:
        with turn.join(f"text {number}", is_background=False).held():
            order.append(number)

    with turn.held():
        for number in range(5):
            threads.append(start(lambda number=number: take(number)))  # type: ignore[misc]
            until_waiting(turn, number + 1)
    finish(*threads)
    assert order == [0, 1, 2, 3, 4]


def test_a_step_that_waits_counts_without_being_announced() -> None:
    """Foreground work goes before background work that came first, also when nobody has set `is_active` for it."""
    clock = Clock()
    turn = DeviceTurn(clock=clock)
    order: list[str] = []

    def take(handle: Participant) -> None:
        with handle.held():
            order.append(handle.name)

    with turn.held():
        loading = start(lambda: take(turn.join("load", is_background=True)))
        until_waiting(turn, 1)
        decoding = start(lambda: take(turn.join("text", is_background=False)))
        until_waiting(turn, 2)
        clock.now += 1
    finish(decoding, loading)
    assert order == ["text", "load"]


def test_only_one_thread_is_inside() -> None:
    """Whoever they are and however they come and go, no two workers step at the same time, and all get through."""
    turn = DeviceTurn(0.5)
    inside, most, num_turns = [0], [0], [0]

    def work(handle: Participant) -> None:
        for number in range(200):
            handle.is_active = number % 7 != 0
            with handle.held():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                num_turns[0] += 1
                inside[0] -= 1
        handle.leave()

    handles = [turn.join(f"worker {number}", is_background=number % 2 == 0) for number in range(6)]
    finish(*(start(lambda handle=handle: work(handle)) for handle in handles))  # type: ignore[misc]
    assert (most, num_turns) == ([1], [1200])


def test_an_exception_inside_gives_the_turn_on() -> None:
    """A failing step does not lock the device for ever."""
    turn = DeviceTurn()
    handle = turn.join("text", is_background=False)
    with pytest.raises(ValueError, match="boom"), handle.held():
        raise ValueError("boom")
    with turn.held():
        assert not turn._waiting


def test_text_gets_what_a_waiting_captioner_owes_it() -> None:
    """Real threads keep to the shares: one image of a second, then three seconds of decode steps, then the next."""
    clock = Clock()
    turn = DeviceTurn(0.25, clock=clock)
    decode, images = turn.join("text", is_background=False), turn.join("captioner", is_background=True)
    decode.is_active = True
    use(images, clock, 1.0)
    num_steps = [0]
    seen: list[int] = []

    def caption() -> None:
        with images.held():
            seen.append(num_steps[0])

    captioning = start(caption)
    until_waiting(turn, 1)
    while not seen and num_steps[0] < 1000:
        use(decode, clock, 1 / 64)
        num_steps[0] += 1
    finish(captioning)
    assert seen[0] in (3 * 64 - 1, 3 * 64)  # granted as the last step ends, before this thread has counted it


@pytest.mark.parametrize("ends", ["idle", "leaves"])
def test_a_captioner_is_woken_when_text_has_ended(ends: str) -> None:
    """What text is still owed does not keep the device from others once its last row is gone."""
    clock = Clock()
    turn = DeviceTurn(clock=clock)
    decode, images = turn.join("text", is_background=False), turn.join("captioner", is_background=True)
    decode.is_active = True
    use(images, clock, 1_000_000.0)
    captioning = start(lambda: use(images, clock, 1.0))
    until_waiting(turn, 1)
    if ends == "idle":
        decode.is_active = False
    else:
        decode.leave()
    finish(captioning)


def test_a_captioner_looks_by_itself_when_text_never_comes_back() -> None:
    """A text worker that is gone without a word stops a waiting captioner for what it was owed only."""
    ticks = itertools.count()
    turn = DeviceTurn(clock=lambda: next(ticks) / 1000)
    decode, images, load = turn.join("text", is_background=False), turn.join("captioner", is_background=True), turn
    decode.is_active = True
    with images.held():
        waiting = [start(lambda: use(images, Clock(), 0)), start(lambda: use(load, Clock(), 0))]
        until_waiting(turn, 2)
    finish(*waiting)


def test_text_waits_for_nobody_who_is_away() -> None:
    """A captioner that is busy elsewhere keeps text from nothing, whatever its credit."""
    clock = Clock()
    turn = DeviceTurn(0.95, clock=clock)
    decode, images = turn.join("text", is_background=False), turn.join("captioner", is_background=True)
    decode.is_active = images.is_active = True

    def work() -> None:
        for _ in range(100):
            use(decode, clock, 10.0)

    finish(start(work))
    assert clock.now == 1000


def test_a_load_makes_way_for_text() -> None:
    """A slice of a load is paid for like an image: the next one waits until text has had its share."""
    clock = Clock()
    turn = DeviceTurn(0.5, clock=clock)
    decode = turn.join("text", is_background=False)
    decode.is_active = True
    use(turn, clock, 1.0)
    loading = start(lambda: use(turn, clock, 0.0))
    until_waiting(turn, 1)
    use(decode, clock, 0.5)
    assert len(turn._waiting) == 1
    use(decode, clock, 0.5)
    finish(loading)


def test_an_interrupted_wait_leaves_no_gap() -> None:
    """A thread that is torn out of its wait does not get a turn that nobody gives on."""
    turn = DeviceTurn()
    decode = turn.join("text", is_background=False)
    interrupted = threading.Event()

    def interrupt(_signal: int, _frame: object) -> None:
        if not interrupted.is_set():
            interrupted.set()
            raise InterruptedError

    def kill_when_waiting() -> None:
        until_waiting(turn, 1)
        with turn._lock:  # free once the wait has begun
            pass
        while not interrupted.is_set():  # a signal just before the wait in C is seen only by the next one
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            interrupted.wait(0.01)

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        with decode.held():
            killing = start(kill_when_waiting)
            with pytest.raises(InterruptedError), turn.held():
                pass
            finish(killing)
    finally:
        signal.signal(signal.SIGUSR1, before)
    finish(start(lambda: use(turn, Clock(), 0)))


def test_reprs_tell_the_state() -> None:
    """Who prints a turn or a handle sees who waits for what."""
    turn = DeviceTurn()
    handle = turn.join("demo", is_background=True)
    with handle.held():
        assert repr(turn) == "<DeviceTurn taken=True waiting=0 owed_s=0.000>"
    assert repr(handle) == "<Participant demo background=True active=False>"
