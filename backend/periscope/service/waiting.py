"""Waiting for launchd: it does most things after it has answered. Owns nothing; all time is the machine's clock."""

from __future__ import annotations

from collections.abc import Callable

from periscope.service.machine import Clock

POLL_S = 0.25


def wait_until(is_so: Callable[[], bool], clock: Clock, *, at_most_s: float) -> bool:
    """Whether it was so in time; asked at once, and then at every poll."""
    ends_at = clock.now() + at_most_s
    while not is_so():
        if clock.now() >= ends_at:
            return False
        clock.sleep(POLL_S)
    return True
