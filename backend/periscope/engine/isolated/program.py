"""The script that a captioner's process runs. Started by `IsolatedVisionLanguageEngine` only.

It first moves the pipe to the server from standard output to another descriptor, before any other import. So what a
library prints, even while it is imported, goes to the log (standard error) and not between two messages.
"""

from __future__ import annotations

import os
import signal
import sys

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the server handles it
    pipe_to_server = os.dup(1)
    os.dup2(2, 1)

    from periscope.engine.isolated.process import run

    run(pipe_to_server, *sys.argv[1:])
