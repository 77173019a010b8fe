"""The command line: short commands that talk to a running server, or build a runtime of their own.

Answers go to stdout; progress, logs and complaints go to stderr. Heavy imports stand inside the commands.
"""

from __future__ import annotations

import os

#: Set by the scripts of `periscope completion` when a shell asks what can be typed next.
COMPLETION_VARIABLE = "_PERISCOPE_COMPLETE"
#: What is left running when a command is over (a load that MLX cannot break off) is not waited for longer than this.
EXIT_GRACE_S = 5.0


def main() -> None:
    """The command `periscope`; ends the process with an `ExitCode`."""
    from periscope.cli.app import app
    from periscope.cli.exits import end_process_after

    if COMPLETION_VARIABLE in os.environ:
        from typer.completion import completion_init  # type: ignore[attr-defined]  # public by its name alone

        completion_init()
    try:
        app(prog_name="periscope")
    except SystemExit as end:
        end_process_after(EXIT_GRACE_S, end.code if isinstance(end.code, int) else 0)
        raise
