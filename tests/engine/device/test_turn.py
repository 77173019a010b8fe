"""DeviceTurn is exclusive, gives fair shares, and leaves no thread waiting."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable

import pytest

from periscope.engine.device.turn import DeviceTurn, Participant

#: A thread that is not through by then hangs.
HANGS_S = 20


@pytest.mark.parametrize("share", [0, 1, -0.5, float("nan")])
def test_a_share_is_a_part(share: float) -> None:
    """Shares that would starve one side are refused."""
    with pytest.raises(ValueError, match="background_share"):
        DeviceTurn(share)


class Clock:
    """A clock that the test advances."""

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
    with handle.acquire():
        clock.now += seconds


def test_waiting_threads_get_the_turn_in_the_order_they_came() -> None:
    """A worker that returns at once queues behind those that waited."""
    turn = DeviceTurn()
    order: list[int] = []
    threads: list[threading.Thread] = []

    def take(number: int) -> None:
        with turn.join(f"text {number}", is_background=False).acquire():
            order.append(number)

    with turn.acquire():
        for number in range(5):
            threads.append(start(lambda number=number: take(number)))  # type: ignore[misc]
            until_waiting(turn, number + 1)
    finish(*threads)
    assert order == [0, 1, 2, 3, 4]


def test_a_step_that_waits_counts_without_being_announced() -> None:
    """Waiting foreground work goes before earlier background work, even if `is_active` was not set."""
    clock = Clock()
    turn = DeviceTurn(clock=clock)
    order: list[str] = []

    def take(handle: Participant) -> None:
        with handle.acquire():
            order.append(handle.name)

    with turn.acquire():
        loading = start(lambda: take(turn.join("load", is_background=True)))
        until_waiting(turn, 1)
        decoding = start(lambda: take(turn.join("text", is_background=False)))
        until_waiting(turn, 2)
        clock.now += 1
    finish(decoding, loading)
    assert order == ["text", "load"]


def test_only_one_thread_is_inside() -> None:
    """No two workers have the turn at the same time, and all of them finish."""
    turn = DeviceTurn(0.5)
    inside, most, num_turns = [0], [0], [0]

    def work(handle: Participant) -> None:
        for number in range(200):
            handle.is_active = number % 7 != 0
            with handle.acquire():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                num_turns[0] += 1
                inside[0] -= 1
        handle.leave()

    handles = [turn.join(f"worker {number}", is_background=number % 2 == 0) for number in range(6)]
    finish(*(start(lambda handle=handle: work(handle)) for handle in handles))  # type: ignore[misc]
    assert (most, num_turns) == ([1], [1200])


def test_an_exception_inside_releases_the_turn() -> None:
    """A failing step does not lock the device for ever."""
    turn = DeviceTurn()
    handle = turn.join("text", is_background=False)
    with pytest.raises(ValueError, match="boom"), handle.acquire():
        raise ValueError("boom")
    with turn.acquire():
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
        with images.acquire():
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
    """Once the last row of a text model has ended, a waiting captioner is woken, whatever was owed."""
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


def test_a_captioner_wakes_by_itself_when_text_never_comes_back() -> None:
    """A text worker that disappears delays a waiting captioner only for the time it was owed."""
    ticks = itertools.count()
    turn = DeviceTurn(clock=lambda: next(ticks) / 1000)
    decode, images, load = turn.join("text", is_background=False), turn.join("captioner", is_background=True), turn
    decode.is_active = True
    with images.acquire():
        waiting = [start(lambda: use(images, Clock(), 0)), start(lambda: use(load, Clock(), 0))]
        until_waiting(turn, 2)
    finish(*waiting)


def test_text_does_not_wait_for_an_absent_captioner() -> None:
    """A captioner that is not waiting does not delay text, whatever its credit."""
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
    """A slice of a load is charged like an image: the next one waits until text has had its share."""
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


def test_an_interrupted_wait_does_not_block_the_turn() -> None:
    """A thread whose wait is interrupted does not receive a turn that it would never release."""
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
        with decode.acquire():
            killing = start(kill_when_waiting)
            with pytest.raises(InterruptedError), turn.acquire():
                pass
            finish(killing)
    finally:
        signal.signal(signal.SIGUSR1, before)
    finish(start(lambda: use(turn, Clock(), 0)))


def test_reprs_tell_the_state() -> None:
    """The repr of a turn or a handle shows its state."""
    turn = DeviceTurn()
    handle = turn.join("demo", is_background=True)
    with handle.acquire():
        assert repr(turn) == "<DeviceTurn taken=True waiting=0 owed_s=0.000>"
    assert repr(handle) == "<Participant demo background=True active=False>"
