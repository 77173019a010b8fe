"""The exit codes of commands, and the one place where errors become a message on stderr and a code."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer

from periscope.errors import (
    AuthenticationFailed,
    ConfigError,
    ModelNotFound,
    ModelNotOnDisk,
    PeriscopeError,
    RemoteUnreachable,
)


class ExitCode(IntEnum):
    """Exit codes for the shell, launchd and scripts. A wrong option gives 2, too; 75 and 78 are those of sysexits.h."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NOT_RUNNING = 3
    UNKNOWN_MODEL = 4
    AUTH = 7
    PORT_HELD = 75
    CONFIG = 78
    INTERRUPTED = 130


class CommandFailed(Exception):
    """A command cannot do what it was asked to; `message` is one or two sentences for the user."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILURE) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def complain(message: str) -> None:
    """Print the message on stderr."""
    typer.echo(message, err=True)


def code_of(error: PeriscopeError) -> ExitCode:
    """Pure: the exit code for an error of this program or of a server."""
    match error:
        case ConfigError():
            return ExitCode.CONFIG
        case ModelNotFound() | ModelNotOnDisk():
            return ExitCode.UNKNOWN_MODEL
        case AuthenticationFailed():
            return ExitCode.AUTH
        case RemoteUnreachable():
            return ExitCode.NOT_RUNNING
        case _:
            return ExitCode.FAILURE


@contextmanager
def exits() -> Iterator[None]:
    """Wraps a command: expected errors are printed without a traceback.

    Raises:
        typer.Exit: with the code that fits.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    except CommandFailed as error:
        complain(error.message)
        raise typer.Exit(error.code) from None
    except PeriscopeError as error:
        complain(error.message)
        raise typer.Exit(code_of(error)) from None


def end_process_after(seconds: float, code: int) -> None:
    """End the process after this time without waiting for its threads, unless it ends by itself before."""
    timer = threading.Timer(seconds, os._exit, (code,))
    timer.daemon = True
    timer.start()
