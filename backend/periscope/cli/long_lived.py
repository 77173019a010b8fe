"""Keeps what lives as long as the models out of Python's garbage collections.

A full collection looks at every object of the process, modules and tokenizers included, and holds up all threads for
100 ms and more. Under load that came again every few hundred requests.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from periscope.events import ModelStateChanged

if TYPE_CHECKING:
    from periscope.events import Event, EventBus

_OLDEST = 2


class _LongLived:
    """Owns whether the next full collection is the last one that looks at what is left after it. Any thread.

    What only lives for a request is then never collected if it is in a reference cycle, so this is done once after each
    change of a model's state. A worker that frees its model has it looked at again.
    """

    def __init__(self) -> None:
        self._is_due = True

    def on_event(self, event: Event) -> None:
        """A listener on the bus."""
        if isinstance(event, ModelStateChanged):
            self._is_due = True

    def on_collection(self, phase: str, info: Mapping[str, Any]) -> None:
        """One of `gc.callbacks`. After a full collection no garbage is left that would be kept for ever."""
        if self._is_due and phase == "stop" and info["generation"] == _OLDEST:
            self._is_due = False
            gc.freeze()


def leave_long_lived_alone(bus: EventBus) -> None:
    """From now on full collections look only at objects that came after the newest change of a model's state.

    It holds for the rest of the process, so it is for the server, which owns its process.
    """
    long_lived = _LongLived()
    bus.add_listener(long_lived.on_event)
    gc.callbacks.append(long_lived.on_collection)
