"""The server's log."""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Iterator

import pytest
from rich.console import Console

from periscope.cli.log import set_up_logging

ROOT_AND_OURS = ("", "periscope", "periscope.pool")


@pytest.fixture(autouse=True)
def loggers_as_before() -> Iterator[None]:
    """The handlers and levels of pytest come back."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], [logging.getLogger(name).level for name in ROOT_AND_OURS]
    yield
    root.handlers[:] = handlers
    for name, level in zip(ROOT_AND_OURS, levels, strict=True):
        logging.getLogger(name).setLevel(level)


def logged(verbosity: int) -> list[str]:
    """Which loggers' lines come through at this verbosity, as `logger level`."""
    screen = io.StringIO()
    set_up_logging(Console(file=screen, width=40), verbosity=verbosity)
    for name in ("periscope.api", "periscope.pool.lifecycle", "uvicorn.error"):
        for level in (logging.DEBUG, logging.INFO, logging.WARNING):
            logging.getLogger(name).log(level, "[bold]said[/bold] %s", "x" * 50)
    lines = screen.getvalue().splitlines()
    assert all(line.endswith(f"[bold]said[/bold] {'x' * 50}") for line in lines)
    return [f"{line.split()[3].rstrip(':')} {line.split()[2]}" for line in lines]


def test_by_default_periscope_tells_what_it_does() -> None:
    """Our INFO lines but the pool's, which the progress display tells; everybody's warnings; nothing is wrapped."""
    assert logged(0) == [
        "periscope.api INFO",
        "periscope.api WARNING",
        "periscope.pool.lifecycle WARNING",
        "uvicorn.error WARNING",
    ]


def test_quiet_means_warnings_only() -> None:
    """-q leaves what somebody should look at."""
    assert all(line.endswith("WARNING") for line in logged(-1))


def test_verbose_adds_our_details_then_everybodys() -> None:
    """-v is for Periscope, -vv for the packages beneath."""
    assert "periscope.pool.lifecycle DEBUG" in logged(1)
    assert "uvicorn.error INFO" not in logged(1)
    assert "uvicorn.error DEBUG" in logged(2)


def test_a_cancelled_request_leaves_no_traceback() -> None:
    """Uvicorn's report of a request that was cancelled at the end of the grace is left out."""
    screen = io.StringIO()
    set_up_logging(Console(file=screen), verbosity=0)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=asyncio.CancelledError())
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=RuntimeError("real"))
    assert screen.getvalue().count("Exception in ASGI application") == 1
    assert "RuntimeError: real" in screen.getvalue()
