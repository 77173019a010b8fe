"""One heap for all threads, where there is a C library that makes more."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tests.cli.process import environment

#: Four threads that hold memory at once; then glibc tells how many arenas it has.
PROGRAM = """
import ctypes, threading
from periscope.cli.allocator import use_one_arena
use_one_arena()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.fdopen.restype = ctypes.c_void_p
all_are_here = threading.Barrier(4)
def hold():
    assert libc.malloc(ctypes.c_size_t(100_000))
    all_are_here.wait()
threads = [threading.Thread(target=hold) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators give freed memory back on their own")
@pytest.mark.parametrize(("asked", "is_one"), [(None, True), ("3", False)], ids=["unset", "set"])
def test_threads_share_one_arena_unless_the_operator_says_otherwise(asked: str | None, is_one: bool) -> None:
    """However many threads allocate at once; `MALLOC_ARENA_MAX` is left alone where it is set."""
    changes = {} if asked is None else {"MALLOC_ARENA_MAX": asked}
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, env=environment(changes)
    )
    assert (done.stdout.count("<heap nr=") == 1) is is_one
