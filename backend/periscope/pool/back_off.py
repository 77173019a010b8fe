"""BackOff: how long a model that failed waits before it is tried again."""

from __future__ import annotations

from dataclasses import dataclass

#: Wait after a failed load, and after the second death of a worker; doubled with each further one. After its first
#: death a model is loaded again at once.
FIRST_BACK_OFF_S = 5.0
MAX_BACK_OFF_S = 300.0
#: The process ends after so many deaths of a model's worker in a row, unless a worker has lived for LASTING_S.
MAX_DEATHS = 3
LASTING_S = 600.0


@dataclass(slots=True)
class BackOff:
    """Owns the counts of one model's failures in a row. Event loop only."""

    _num_failed_loads: int = 0
    _num_deaths: int = 0

    def load_failed(self) -> float:
        """Note a failed load and return the seconds to wait."""
        self._num_failed_loads += 1
        return _doubled(self._num_failed_loads - 1)

    def forget_failed_loads(self) -> None:
        """Note that a load has succeeded or a command has cleared the failure. The count of deaths stays."""
        self._num_failed_loads = 0

    def worker_died(self, life_s: float) -> float:
        """Note that a worker ended by itself, `life_s` after it was ready, and return the seconds to wait."""
        self._num_deaths = 1 if life_s >= LASTING_S else self._num_deaths + 1
        return 0.0 if self._num_deaths == 1 else _doubled(self._num_deaths - 2)

    @property
    def is_hopeless(self) -> bool:
        """The worker has died so often that another load in this process is not expected to help."""
        return self._num_deaths >= MAX_DEATHS


def _doubled(num_before: int) -> float:
    return float(min(FIRST_BACK_OFF_S * 2**num_before, MAX_BACK_OFF_S))
