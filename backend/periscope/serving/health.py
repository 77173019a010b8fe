"""Is the server fit to serve? Pure: from the statuses of the models to one word and its reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from periscope.core import ModelState

if TYPE_CHECKING:
    from periscope.serving.models import ModelNames
    from periscope.status import ModelStatus


class HealthStatus(StrEnum):
    """`DEGRADED` serves, but not all it was asked to (say, no captioner). `FAILED` serves nothing by default."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Health:
    """One reading. `problems` are sentences for a person; `num_running` counts requests that hold a model."""

    status: HealthStatus
    models: Mapping[str, str]
    problems: tuple[str, ...]
    num_running: int = 0

    @property
    def is_ready(self) -> bool:
        """Requests will be served."""
        return self.status in {HealthStatus.READY, HealthStatus.DEGRADED}

    @property
    def is_healthy(self) -> bool:
        """Nothing is wrong that waiting will not mend."""
        return self.status is not HealthStatus.FAILED


def health_of(models: Sequence[ModelStatus], names: ModelNames, *, is_starting: bool, is_stopping: bool) -> Health:
    """Numbered cases, first match: 1 stopping, 2 default model failed, 3 not there yet, 4 another failed, 5 well.

    A default model that is not in memory later on is no matter: requests load it, and wait as long as that takes.
    """
    states = {model.name: model.state for model in models}
    default = states[names.default.name]
    problems = tuple(f"{model.name}: {model.error or 'failed'}" for model in models if model.state is ModelState.FAILED)
    if is_stopping:  # 1
        status = HealthStatus.STOPPING
    elif default is ModelState.FAILED:  # 2
        status = HealthStatus.FAILED
    elif is_starting and default is not ModelState.READY:  # 3
        status = HealthStatus.STARTING
    elif problems:  # 4
        status = HealthStatus.DEGRADED
    else:  # 5
        status = HealthStatus.READY
    return Health(
        status=status,
        models={name: str(state) for name, state in states.items()},
        problems=problems,
        num_running=sum(model.num_running for model in models),
    )
