"""MachineReactions: what the server does about the memory pressure, heat and sleep of its machine. Event loop only."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from periscope.core import ModelState
from periscope.host import HostReading

if TYPE_CHECKING:
    from periscope.pool.pool import ModelPool
    from periscope.serving.health import Notices
    from periscope.serving.requests import LiveRequests
    from periscope.serving.service import ChatService

logger = logging.getLogger(__name__)

MEMORY_CRITICAL = (
    "The system reports critical memory pressure. Idle models are unloaded, and none is loaded until it has passed. "
    "Close other programs, or lower `memory.budget` in models.yaml."
)


class MachineReactions:
    """A `HostListener`. Owns nothing: it tells pool, captioners and notices.

    Args:
        has_other_work: something else goes on for which the machine should stay awake.
    """

    def __init__(
        self,
        service: ChatService,
        pool: ModelPool,
        requests: LiveRequests,
        notices: Notices,
        has_other_work: Callable[[], bool] = lambda: False,
    ) -> None:
        self._service = service
        self._pool = pool
        self._requests = requests
        self._notices = notices
        self._has_other_work = has_other_work

    def is_busy(self) -> bool:
        """Whether a request runs or waits, a model is being loaded, or something is being downloaded."""
        is_working = any(
            status.state is ModelState.LOADING or status.num_running for status in self._service.statuses()
        )
        return is_working or bool(self._requests.all()) or self._has_other_work()

    def memory_is_critical(self, *, is_critical: bool) -> None:
        """Hold loads while memory pressure is critical, and say so in the status."""
        logger.warning("memory pressure is %s", "critical: loads wait" if is_critical else "critical no longer")
        self._notices.put("memory", MEMORY_CRITICAL if is_critical else None)
        self._pool.hold_loads(is_held=is_critical)

    def relieve_memory(self) -> None:
        """Unload one idle model. Called again while the pressure lasts."""
        unloaded = self._pool.relieve_memory()
        if unloaded is not None:
            logger.warning("model %s is unloaded because of memory pressure", unloaded)

    def heat_changed(self, reading: HostReading) -> None:
        """Say in the status that heat makes everything slow, or no longer does."""
        thermal = reading.thermal
        is_hot = thermal is not None and thermal.is_hot
        sentence = f"The Mac is hot (thermal state {thermal}), so the system slows it down." if is_hot else None
        self._notices.put("heat", sentence)

    def woke(self, slept_s: float) -> None:  # noqa: ARG002 - of the listener's contract
        """Check the models on other servers: the network may have changed. Other timers only count time awake."""
        self._service.check_elsewhere()
