"""The first steps of a captioner's own process: run as a script, by `IsolatedVisionLanguageEngine` alone.

Before anything else is imported it takes the pipe to the server away from standard output, so that what a library
prints, even while it is imported, goes to the log (standard error) and not between two messages.
"""

from __future__ import annotations

import os
import signal

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the server decides what it means
    pipe_to_server = os.dup(1)
    os.dup2(2, 1)

    from periscope.engine.isolated.process import run

    run(pipe_to_server)
