"""What lives as long as the models is left out of garbage collections."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from periscope.cli.long_lived import leave_long_lived_alone
from periscope.events import EventBus, ModelStateChanged


@pytest.fixture(autouse=True)
def collector_as_before() -> Iterator[None]:
    """Nothing is left out at first, and other tests have the collector as it was."""
    callbacks = gc.callbacks[:]
    gc.unfreeze()
    yield
    gc.callbacks[:] = callbacks
    gc.freeze()


def num_looked_at() -> int:
    return len(gc.get_objects())


def test_a_full_collection_is_the_last_for_what_it_leaves() -> None:
    """Once at the start, and once more after each change of a model's state; what is younger is looked at as ever."""
    bus = EventBus()
    gc.collect()
    num_all = num_looked_at()
    leave_long_lived_alone(bus)
    gc.collect(1)
    assert gc.get_freeze_count() == 0
    gc.collect()
    assert gc.get_freeze_count() > num_all / 2
    assert num_looked_at() < num_all / 2
    num_frozen, kept = gc.get_freeze_count(), [[number] for number in range(10_000)]
    gc.collect()
    assert gc.get_freeze_count() <= num_frozen
    bus.publish(ModelStateChanged("m", "loading", "ready"))
    gc.collect()
    assert gc.get_freeze_count() > num_frozen + len(kept) / 2
