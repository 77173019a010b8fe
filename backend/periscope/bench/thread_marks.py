"""Marks for threads: every Python thread of a process bears its own id in the name that the operating system knows.

A thread of a library inherits the name of the thread that started it, with an id that is not its own. So whoever reads
/proc from the outside tells threads that run Python from those that only compute. `host_time` has the file read by
servers that are measured, as their `sitecustomize`: it needs the standard library only, and nothing of Periscope.
"""

import sys
import threading
from contextlib import suppress
from pathlib import Path


def mark_threads() -> None:
    """Mark every thread that `threading` starts from now on. The main thread needs none: its id is the process's."""
    threading.setprofile(_mark)


def _mark(_frame: object, _event: str, _arg: object) -> None:
    """The first event of a new thread: write the name, and have no further events told."""
    sys.setprofile(None)
    with suppress(OSError):
        Path("/proc/thread-self/comm").write_text(f"{threading.get_native_id()}:python")
