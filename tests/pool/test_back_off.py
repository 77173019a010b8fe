"""How long a model that failed is left alone."""

from __future__ import annotations

from periscope.pool.back_off import FIRST_BACK_OFF_S, LASTING_S, MAX_BACK_OFF_S, MAX_DEATHS, BackOff


def test_the_wait_after_failed_loads_doubles_to_a_bound() -> None:
    """5, 10, 20 ... 300 s, and from the beginning again after a load that succeeded."""
    back_off = BackOff()
    waits = [back_off.load_failed() for _ in range(9)]
    assert waits[:3] == [FIRST_BACK_OFF_S, 2 * FIRST_BACK_OFF_S, 4 * FIRST_BACK_OFF_S]
    assert waits[-2:] == [MAX_BACK_OFF_S] * 2
    back_off.forget_failed_loads()
    assert back_off.load_failed() == FIRST_BACK_OFF_S


def test_a_first_death_costs_no_wait_and_a_long_life_forgives() -> None:
    """Deaths in a row wait ever longer and end in hopelessness; one after a long life counts as the first."""
    back_off = BackOff()
    assert [back_off.worker_died(1.0) for _ in range(MAX_DEATHS)] == [0.0, FIRST_BACK_OFF_S, 2 * FIRST_BACK_OFF_S]
    assert back_off.is_hopeless
    assert back_off.worker_died(LASTING_S) == 0.0
    assert not back_off.is_hopeless


def test_failed_loads_and_deaths_are_counted_apart() -> None:
    """A load that succeeds between two deaths does not make the second one the first."""
    back_off = BackOff()
    back_off.worker_died(1.0)
    back_off.load_failed()
    back_off.forget_failed_loads()
    assert back_off.worker_died(1.0) == FIRST_BACK_OFF_S
