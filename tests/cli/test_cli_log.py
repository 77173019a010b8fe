"""The server's log."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from periscope.cli.log import LogFile, Redaction, empty_collected, keep_tail, log_to_file, set_up_logging

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


def test_a_broken_picture_is_no_line_of_the_log() -> None:
    """What Pillow warns of is dropped; other packages' warnings are as they were."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        set_up_logging(None, verbosity=2)
        for module in ("PIL.TiffImagePlugin", "httpx"):
            warnings.warn_explicit(f"{module} warns", UserWarning, f"{module}.py", 1, module)
    assert [str(each.message) for each in told] == ["httpx warns"]


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


def formatted(text: str, *secrets: str) -> str:
    return Redaction(secrets).format(logging.makeLogRecord({"msg": "%s", "args": (text,), "levelname": "INFO"}))


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("the key is my-own-key.", "the key is ********."),
        ("Authorization: Bearer abc.def-123", "Authorization: Bearer ********"),
        ("x-api-key: 0123456789", "x-api-key: ********"),
        ("token hf_abcdefghijkl refused", "token hf_******** refused"),
        ("https://me:pass@host/v1", "https://********@host/v1"),
        ("{'api_key': 'abcdefgh', 'n': 1}", "{'api_key': '********', 'n': 1}"),
        ("prompt_token=12, max_tokens: 600000", "prompt_token=12, max_tokens: 600000"),
        ("http://127.0.0.1:7374/v1 is ready", "http://127.0.0.1:7374/v1 is ready"),
    ],
)
def test_no_line_holds_a_secret(said: str, written: str) -> None:
    """Configured keys, and what looks like one; what only reads like one stays."""
    assert formatted(said, "my-own-key").endswith(f": {written}")


def test_pictures_are_cut() -> None:
    """A data: URL is told by its first 64 characters or so."""
    line = formatted(f"cannot read 'data:image/png;base64,{'A' * 5000}' at all")
    assert line.endswith("A...' at all")
    assert len(line) < 200


def test_a_secret_in_a_traceback_is_hidden_too() -> None:
    """The error's text is often where it stands."""
    screen = io.StringIO()
    set_up_logging(Console(file=screen), verbosity=0, secrets=(None, "sesame-open")).hide("learned-later")
    failure = RuntimeError("sesame-open and learned-later")
    logging.getLogger("periscope").error("it failed", exc_info=failure)
    assert "RuntimeError: ******** and ********" in screen.getvalue()


def test_the_file_is_private_and_rotates_with_the_crash_stacks(tmp_path: Path) -> None:
    """Old files are kept up to a number, and stacks of a crash go into whichever file is written now."""
    opened: list[IO[str]] = []
    path = tmp_path / "logs" / "server.log"
    file = LogFile(path, max_bytes=1000, keep=2, on_open=opened.append)
    redaction = set_up_logging(Console(file=io.StringIO()), verbosity=0, secrets=("sesame-open",))
    log_to_file(file, redaction, alone=False)
    for number in range(100):
        logging.getLogger("periscope").info("sesame-open %d", number)
    assert len(logging.getLogger().handlers) == 2
    file.close()
    assert sorted(each.name for each in path.parent.iterdir()) == ["server.log", "server.log.1", "server.log.2"]
    assert all(stat.S_IMODE(each.stat().st_mode) == 0o600 for each in path.parent.iterdir())
    assert all(each.stat().st_size <= 1000 for each in path.parent.iterdir())
    assert path.read_text().splitlines()[-1].endswith("******** 99")
    assert "sesame" not in path.read_text()
    assert len(opened) > 2
    assert [stream.closed for stream in opened[:-1]] == [True] * (len(opened) - 1)


def test_under_launchd_the_file_is_the_only_log(tmp_path: Path) -> None:
    """What launchd collects of stderr is never rotated, so nothing goes there."""
    screen = io.StringIO()
    file = LogFile(tmp_path / "server.log", max_bytes=10_000, keep=1, on_open=lambda _: None)
    log_to_file(file, set_up_logging(Console(file=screen), verbosity=0), alone=True)
    logging.getLogger("periscope").info("said")
    file.close()
    assert (screen.getvalue(), "said" in (tmp_path / "server.log").read_text()) == ("", True)


def test_what_launchd_collected_is_emptied_once_it_is_long(tmp_path: Path) -> None:
    """A short one stays, for its last words; a pipe or a terminal is no file."""
    long, short = tmp_path / "long", tmp_path / "short"
    long.write_bytes(b"x" * 1_000_001)
    short.write_bytes(b"last words")
    reading, writing = os.pipe()
    with long.open("ab") as one, short.open("ab") as other:
        empty_collected((one.fileno(), other.fileno(), writing))
    os.close(reading)
    os.close(writing)
    assert (long.stat().st_size, short.stat().st_size) == (0, 10)


def test_the_lines_that_anybody_may_ask_for_hold_no_secret() -> None:
    """`/api/logs` goes through the same redaction as the file; what was logged before is not in it."""
    redaction = set_up_logging(Console(file=io.StringIO()), verbosity=0, secrets=["open sesame"])
    logging.getLogger("periscope.api").info("before")
    tail = keep_tail(redaction)
    logging.getLogger("periscope.api").warning("the key is %s", "open sesame")
    (line,) = tail.newest(10)
    assert (line.level, line.text.split(": ", 1)[1]) == ("warning", "the key is ********")
