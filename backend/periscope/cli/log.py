"""The server's log: one line for each thing that happened, on stderr above the progress bars, and in a file.

No line holds a secret: the configured keys, the token, and what looks like a key are blotted out before it is written.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import re
import stat
import warnings
from collections.abc import Callable, Iterable
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from periscope.cli.progress import print_line
from periscope.log_tail import LogTail

if TYPE_CHECKING:
    from rich.console import Console

#: The attribute of a record that holds its line.
_MADE = "periscope_line"
_BLOT = "********"
#: Shorter ones would blot out parts of ordinary words.
_MIN_SECRET = 6
#: A picture in a log line is cut to this many characters, as its address is.
_MAX_DATA_URL = 64
_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic) +[\w.~+/=-]{6,}"), rf"\1 {_BLOT}"),
    (re.compile(r"\b(hf_|sk-|ghp_)[A-Za-z0-9_-]{8,}"), rf"\1{_BLOT}"),
    (re.compile(r"(?i)\b(x?-?api[_-]?key|token|password|secret)(['\"]?[=:] ?['\"]?)[^\s'\"&,;]{6,}"), rf"\1\2{_BLOT}"),
    (re.compile(r"://[^\s/@]+@"), f"://{_BLOT}@"),
    (re.compile(rf"(data:[^\s,;]*;base64,[^\s'\"]{{{_MAX_DATA_URL - 20}}})[^\s'\"]+"), r"\1..."),
)
#: What launchd has collected of stderr and stdout is emptied at a start once it is longer.
_MAX_COLLECTED_BYTES = 1_000_000


class Redaction(logging.Formatter):
    """Owns the secrets that no line may show; formats records without them."""

    def __init__(self, secrets: Iterable[str | None]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._secrets: set[str] = set()
        self.hide(*secrets)

    def hide(self, *secrets: str | None) -> None:
        """Blot these out from now on."""
        self._secrets.update(secret for secret in secrets if secret is not None and len(secret) >= _MIN_SECRET)

    def format(self, record: logging.LogRecord) -> str:
        """The line, with its traceback if it has one. It is made once for all handlers, and kept with the record."""
        if (made := record.__dict__.get(_MADE)) is None:
            made = record.__dict__[_MADE] = self._without_secrets(super().format(record))
        return cast("str", made)

    def _without_secrets(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, _BLOT)
        for pattern, blotted in _SECRETS:
            text = pattern.sub(blotted, text)
        return text


class ConsoleHandler(logging.Handler):
    """Owns nothing; writes records to the console that also draws the bars, or to stderr. Any thread."""

    def __init__(self, console: Console | None) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        try:
            print_line(self._console, self.format(record))
        except Exception:  # noqa: BLE001 - a log that cannot be written must not end the server
            self.handleError(record)


class LogFile(RotatingFileHandler):
    """Owns the log file, which its owner alone may read, and the older ones beside it (`server.log.1` is the newest).

    Args:
        on_open: given each file that is opened: where Python's stacks go if the process dies inside native code.
    """

    def __init__(
        self, path: Path, *, max_bytes: int, keep: int, on_open: Callable[[IO[str]], None] = faulthandler.enable
    ) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._on_open = on_open
        super().__init__(path, maxBytes=max_bytes, backupCount=keep, encoding="utf-8", errors="backslashreplace")

    def shouldRollover(self, record: logging.LogRecord) -> bool:  # noqa: N802 - as above
        """Whether the file would become too long. The library's own asks the disk three times for each line."""
        stream: IO[str] = self.stream or self._open()
        self.stream = stream  # type: ignore[assignment]  # as above
        return os.fstat(stream.fileno()).st_size + len(self.format(record)) + 1 >= self.maxBytes

    def _open(self) -> IO[str]:  # type: ignore[override]  # the library's own type is narrower than what it uses
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        stream = open(descriptor, self.mode, encoding=self.encoding, errors=self.errors)  # noqa: SIM115, PTH123
        self._on_open(stream)
        return stream


def set_up_logging(console: Console | None, *, verbosity: int, secrets: Iterable[str | None] = ()) -> Redaction:
    """Replace the root logger's handlers. Returns what keeps secrets out of the lines.

    What Pillow warns of is dropped: a client's broken picture is told to the client, and its words would each be a line
    on stderr and be remembered by the interpreter for good.

    Args:
        verbosity: -1 warnings, 0 what Periscope does, 1 its details too, 2 other packages' details as well.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    redaction = Redaction(secrets)
    root = logging.getLogger()
    # Rich takes its time for each line, and only a terminal has bars to write above.
    screen: logging.Handler = logging.StreamHandler(None if console is None else console.file)
    if console is not None and console.is_terminal:
        screen = ConsoleHandler(console)
    root.handlers[:] = [_handler(screen, redaction)]
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.WARNING)
    ours = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.getLogger("periscope").setLevel(ours)
    # The progress display tells each change of a model's state already.
    logging.getLogger("periscope.pool").setLevel(ours if verbosity > 0 else logging.WARNING)
    return redaction


def log_to_file(file: LogFile, redaction: Redaction, *, alone: bool) -> None:
    """Write the log into the file, too. `alone`: no longer to the console, which launchd collects without end."""
    root = logging.getLogger()
    handler = _handler(file, redaction)
    root.handlers[:] = [handler] if alone else [*root.handlers, handler]


def keep_tail(redaction: Redaction) -> LogTail:
    """Keep the newest lines in memory, too, from now on."""
    tail = LogTail()
    logging.getLogger().addHandler(_handler(tail, redaction))
    return tail


def empty_collected(descriptors: Iterable[int] = (1, 2)) -> None:
    """Empty the files behind stdout and stderr that launchd only ever appends to, if they have become long."""
    for descriptor in descriptors:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size > _MAX_COLLECTED_BYTES:
            os.ftruncate(descriptor, 0)


def _handler(handler: logging.Handler, redaction: Redaction) -> logging.Handler:
    handler.addFilter(_is_news)
    handler.setFormatter(redaction)
    return handler


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record is worth a line: uvicorn's traceback for a request that we cancelled is not."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))
