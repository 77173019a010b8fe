"""The CPU time of Python threads, without that of threads that compute."""

from __future__ import annotations

import asyncio
import re
import sys
import threading
import time
from collections.abc import Mapping

import psutil
import pytest

from periscope.bench.child import child
from periscope.bench.host_time import HostClock, HostLog, own_clock
from periscope.bench.samples import MAIN_THREAD

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="threads are told apart by /proc")
_NUMBER = re.compile(r"^(\d+)$")
#: Two threads of Python, and one of a library, which inherits the name of the Python thread that starts it.
PROGRAM = """
import sys, threading, time
import mlx.core as mx
def work():
    mx.eval(mx.ones(4) + 1)  # makes the thread that computes
    end = time.thread_time() + 0.05
    while time.thread_time() < end:
        pass
    sys.stdout.write(f"{threading.get_native_id()}\\n")  # at once: the other thread writes, too
    sys.stdout.flush()
    threading.Event().wait()
for _ in range(2):
    threading.Thread(target=work, daemon=True).start()
threading.Event().wait()
"""


@on_linux
def test_the_python_threads_of_a_process_are_told_from_those_that_compute() -> None:
    """All of its own threads are read, each with the CPU time that it has taken, and no thread of MLX's."""

    async def run() -> tuple[set[int], Mapping[int, float], int]:
        async with child((sys.executable, "-c", PROGRAM)) as process:
            numbers = [await process.find(_NUMBER) for _ in range(2)]
            clock = process.host_clock()
            assert clock is not None
            return {int(number[1]) for number in numbers if number}, clock(), psutil.Process(process.pid).num_threads()

    workers, spent_s, num_tasks = asyncio.run(run())
    assert set(spent_s) == workers | {MAIN_THREAD}
    assert all(spent_s[worker] >= 0.045 for worker in workers)
    assert num_tasks > len(spent_s)


@on_linux
def test_a_program_that_is_not_python_has_no_known_host_time() -> None:
    """Nothing is taken for the time of Python threads where there are none."""

    async def run() -> HostClock | None:
        async with child(("sleep", "60")) as process:
            return process.host_clock()

    assert asyncio.run(run()) is None


@on_linux
def test_this_process_reads_its_own_threads() -> None:
    """What a thread does counts for this thread."""
    done, ended = threading.Event(), threading.Event()

    def work() -> None:
        end = time.thread_time() + 0.02
        while time.thread_time() < end:
            pass
        done.set()
        ended.wait()

    thread = threading.Thread(target=work)
    thread.start()
    clock = own_clock()
    assert clock is not None
    assert done.wait(60)
    spent_s = clock()
    ended.set()
    thread.join()
    assert spent_s[MAIN_THREAD] > 0
    assert spent_s[thread.native_id or 0] >= 0.02


def test_stamps_are_not_nearer_than_their_gap() -> None:
    """Reading the clock at every token would take the time of what is measured."""
    log = HostLog(lambda: {MAIN_THREAD: 1.0}, gap_s=0.25)
    for now_s in (0.0, 0.125, 0.25, 0.375, 1.0):
        log.note(now_s)
    assert [stamp.time_s for stamp in log.stamps] == [0.0, 0.25, 1.0]
    unknown = HostLog(None)
    unknown.note(1.0)
    assert unknown.stamps == ()
