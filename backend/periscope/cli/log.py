"""The server's log: one line for each thing that happened, on stderr, above the progress bars if there are any."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from periscope.cli.progress import print_line

if TYPE_CHECKING:
    from rich.console import Console


class ConsoleHandler(logging.Handler):
    """Owns nothing; writes records to the console that also draws the bars. Any thread."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """One record."""
        try:
            print_line(self._console, self.format(record))
        except Exception:  # noqa: BLE001 - a log that cannot be written must not end the server
            self.handleError(record)


def _is_news(record: logging.LogRecord) -> bool:
    """Not uvicorn's traceback for a request that we cancelled when the grace was over."""
    return not (record.exc_info and isinstance(record.exc_info[1], asyncio.CancelledError))


def set_up_logging(console: Console, *, verbosity: int) -> None:
    """Replace the root logger's handlers.

    Args:
        verbosity: -1 warnings, 0 what Periscope does, 1 its details too, 2 other packages' details as well.
    """
    handler = ConsoleHandler(console)
    handler.addFilter(_is_news)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity > 1 else logging.WARNING)
    ours = {-1: logging.WARNING, 0: logging.INFO}.get(verbosity, logging.DEBUG)
    logging.getLogger("periscope").setLevel(ours)
    # The progress display tells each change of a model's state already.
    logging.getLogger("periscope.pool").setLevel(ours if verbosity > 0 else logging.WARNING)
