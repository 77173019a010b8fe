"""The server's health, from the statuses of its models and what else was noticed: one word and its reasons."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from periscope.core import ModelState
from periscope.events import Event, ServerChanged

if TYPE_CHECKING:
    from periscope.serving.models import ModelNames
    from periscope.status import ModelStatus


class HealthStatus(StrEnum):
    """`DEGRADED`: there are problems, and the default model has not failed. `FAILED`: the default model failed."""

    STARTING = "starting"
    READY = "ready"
    DEGRADED = "degraded"
    FAILED = "failed"
    STOPPING = "stopping"


@dataclass(frozen=True, slots=True)
class Health:
    """The server's health at one moment.

    Attributes:
        models: name -> state of each configured model.
        problems: sentences for a person.
        num_running: requests that hold a lease.
    """

    status: HealthStatus
    models: Mapping[str, str]
    problems: tuple[str, ...]
    num_running: int = 0

    @property
    def is_ready(self) -> bool:
        """Whether requests to the default model are served."""
        return self.status in {HealthStatus.READY, HealthStatus.DEGRADED}

    @property
    def is_healthy(self) -> bool:
        """Whether the default model has not failed. If it has, a restart may help."""
        return self.status is not HealthStatus.FAILED


class Notices:
    """Owns what of the server itself is not as it should be: one sentence a topic. Event loop only."""

    def __init__(self, publish: Callable[[Event], None] = lambda _: None) -> None:
        self._publish = publish
        self._sentences: dict[str, str] = {}

    @property
    def sentences(self) -> tuple[str, ...]:
        """What is wrong, in sentences for a person, the oldest first."""
        return tuple(self._sentences.values())

    def put(self, topic: str, sentence: str | None) -> None:
        """Say what is wrong in this respect, instead of what was said before; None = nothing is."""
        if self._sentences.get(topic) == sentence:
            return
        self._sentences.pop(topic, None)
        if sentence is not None:
            self._sentences[topic] = sentence
        self._publish(ServerChanged())


def health_of(
    models: Sequence[ModelStatus],
    names: ModelNames,
    *,
    is_starting: bool,
    is_stopping: bool,
    notices: tuple[str, ...] = (),
) -> Health:
    """The first case that holds: 1 stopping, 2 default model failed, 3 starting, 4 other problems, 5 ready. Pure.

    After the start a default model that is not in memory is not a problem: a request loads it and waits for it.
    """
    states = {model.name: model.state for model in models}
    default = states[names.default.name]
    failures = (f"{model.name}: {model.error or 'failed'}" for model in models if model.state is ModelState.FAILED)
    problems = (*notices, *failures)
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
