"""BackOff: how long a failed model waits before it is tried again."""

from __future__ import annotations

from periscope.pool.back_off import FIRST_BACK_OFF_S, LASTING_S, MAX_BACK_OFF_S, MAX_DEATHS, BackOff


def test_the_wait_after_failed_loads_doubles_to_a_bound() -> None:
    """The wait is 5, 10, 20 ... 300 s, and starts again at 5 s after a load that succeeded."""
    back_off = BackOff()
    waits = [back_off.load_failed() for _ in range(9)]
    assert waits[:3] == [FIRST_BACK_OFF_S, 2 * FIRST_BACK_OFF_S, 4 * FIRST_BACK_OFF_S]
    assert waits[-2:] == [MAX_BACK_OFF_S] * 2
    back_off.forget_failed_loads()
    assert back_off.load_failed() == FIRST_BACK_OFF_S


def test_a_first_death_costs_no_wait_and_a_long_life_forgives() -> None:
    """The wait grows with each death in a row until the model is hopeless; after a long life the count restarts."""
    back_off = BackOff()
    assert [back_off.worker_died(1.0) for _ in range(MAX_DEATHS)] == [0.0, FIRST_BACK_OFF_S, 2 * FIRST_BACK_OFF_S]
    assert back_off.is_hopeless
    assert back_off.worker_died(LASTING_S) == 0.0
    assert not back_off.is_hopeless


def test_failed_loads_and_deaths_are_counted_apart() -> None:
    """A load that succeeds between two deaths does not reset the count of deaths."""
    back_off = BackOff()
    back_off.worker_died(1.0)
    back_off.load_failed()
    back_off.forget_failed_loads()
    assert back_off.worker_died(1.0) == FIRST_BACK_OFF_S
