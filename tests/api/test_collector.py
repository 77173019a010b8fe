"""The collector rests while a big body is read, and no longer."""

from __future__ import annotations

import gc
import sys

import pytest

from periscope.api.collector import paused_collector
from periscope.api.freed_memory import give_back_freed_memory


def test_the_collector_rests_inside_and_runs_again_afterwards() -> None:
    """Also when the work fails, and only the first of several that overlap decides."""
    with paused_collector():
        assert not gc.isenabled()
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="broken"), paused_collector():
        raise ValueError("broken")
    assert gc.isenabled()


def test_a_collector_that_was_switched_off_stays_off() -> None:
    """Somebody else's setting is not ours to undo."""
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps freed memory")
def test_freed_memory_is_given_back() -> None:
    """Small blocks that were freed below one that lives on stay with glibc until it is told."""
    import psutil

    process = psutil.Process()
    blocks = [bytes(bytearray(100_000)) for _ in range(1000)]
    last = bytes(bytearray(100_000))
    full = process.memory_info().rss
    blocks.clear()
    give_back_freed_memory()
    assert full - process.memory_info().rss > 50_000_000
    assert last
