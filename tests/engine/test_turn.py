"""DeviceTurn: fair and exclusive."""

from __future__ import annotations

import threading

import pytest

from periscope.engine.turn import DeviceTurn


def test_waiting_threads_get_the_turn_in_the_order_they_came() -> None:
    """A worker that comes back at once queues behind those who waited."""
    turn = DeviceTurn()
    order: list[int] = []
    threads: list[threading.Thread] = []

    def take(number: int) -> None:
        with turn.held():
            order.append(number)

    with turn.held():
        for number in range(5):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            while len(turn._waiting) <= number:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_only_one_thread_is_inside() -> None:
    """Two workers never step at the same time."""
    turn = DeviceTurn()
    inside, most = [0], [0]

    def work() -> None:
        for _ in range(200):
            with turn.held():
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                inside[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]


def test_an_exception_inside_gives_the_turn_on() -> None:
    """A failing step does not lock the device for ever."""
    turn = DeviceTurn()
    with pytest.raises(ValueError, match="boom"), turn.held():
        raise ValueError("boom")
    with turn.held():
        assert not turn._waiting
