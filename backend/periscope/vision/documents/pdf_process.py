"""PdfProcess asks PDFium, which works in a process of its own. Its calls block, so they run in executor threads.

Whatever a file does there, a crash, a page that never ends, memory without end, costs this one answer and nothing else:
the process is ended, the file is refused, and the next file gets a new process. What comes back is JSON and pixels, for
a process that a hostile file has taken over is not to be believed.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from periscope.core import Image
from periscope.errors import DocumentInvalid, ServerBusy
from periscope.vision.documents.pdf import PageContent, PageFile, drawn_size
from periscope.vision.documents.settings import DocumentSettings

logger = logging.getLogger(__name__)

_PROGRAM: Final = Path(__file__).with_name("pdf_program.py")
#: Beyond the time that a file may take by its own settings: the start of the process, and one page that never ends.
_GRACE_S: Final = 10.0
_WAIT_S: Final = 30.0
_RETRY_AFTER_S: Final = 5
#: No page has more text than that, nor a document all together.
_MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024


class PdfProcess:
    """Owns the process, which is started when it is needed, and the turn to ask it; it ends with this object."""

    def __init__(self, *, grace_s: float = _GRACE_S) -> None:
        self._grace_s = grace_s
        self._turn = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., PdfProcess] | None = None

    def read_pages(self, data: bytes, settings: DocumentSettings, *, param: str) -> tuple[PageContent, ...]:
        """What each page of a PDF holds.

        Raises:
            DocumentInvalid: encrypted, broken, too many pages, or it takes too much time or memory.
            ServerBusy: other documents were being read all the time.
        """
        head, _ = self._asked(("read", data, settings, param), settings.max_seconds, param)
        try:
            return tuple(PageContent(*page) for page in head["pages"])
        except (KeyError, TypeError) as error:
            raise _gave_up(param) from error

    def draw(self, page: PageFile, *, max_side_px: int, sha256: str) -> Image:
        """The page's picture.

        Raises:
            DocumentInvalid: it cannot be drawn, or takes too much time or memory.
            ServerBusy: other documents were being read all the time.
        """
        width, height = drawn_size(page, max_side_px)
        _, rgb = self._asked(("draw", page, max_side_px), page.max_seconds, page.param)
        if len(rgb) != 3 * width * height:
            raise _gave_up(page.param)
        return Image(rgb, width, height, source_width=page.width, source_height=page.height, sha256=sha256)

    def _asked(self, request: object, max_seconds: float, param: str) -> tuple[dict[str, Any], bytes]:
        if not self._turn.acquire(timeout=_WAIT_S):
            raise ServerBusy("The server is reading other documents. Try again soon.", retry_after_s=_RETRY_AFTER_S)
        try:
            process = self._running()
            timer = threading.Timer(max_seconds + self._grace_s, process.kill)
            timer.start()
            try:
                head, pixels = _exchange(process, pickle.dumps(request))
            except (OSError, EOFError, ValueError) as error:
                logger.warning("PDFium gave up on a document: %s", type(error).__name__)
                self._stop()
                raise _gave_up(param) from error
            finally:
                timer.cancel()
        finally:
            self._turn.release()
        if "error" in head:
            raise DocumentInvalid(str(head["error"]), reason=str(head["reason"]), param=param)
        return head, pixels

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._stop()
        path = os.pathsep.join(str(Path(each).absolute()) for each in sys.path)
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-P", str(_PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path},
        )
        self._end = weakref.finalize(self, _ended, self._process)
        return self._process

    def _stop(self) -> None:
        if self._end is not None:
            self._end()
        self._process = self._end = None


def _exchange(process: subprocess.Popen[bytes], request: bytes) -> tuple[dict[str, Any], bytes]:
    """Raises OSError, EOFError or ValueError if the process ended or answers nonsense."""
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 - started with pipes
    process.stdin.write(len(request).to_bytes(8, "big"))
    process.stdin.write(request)
    process.stdin.flush()
    sizes = [int.from_bytes(_exactly(process, 8), "big") for _ in range(2)]
    if sum(sizes) > _MAX_ANSWER_BYTES:
        raise ValueError("an answer of this size")
    head = json.loads(_exactly(process, sizes[0]))
    if not isinstance(head, dict):
        raise ValueError("no object")  # noqa: TRY004 - as for any other nonsense
    return head, _exactly(process, sizes[1])


def _exactly(process: subprocess.Popen[bytes], num_bytes: int) -> bytes:
    assert process.stdout is not None  # noqa: S101 - started with pipes
    data = process.stdout.read(num_bytes)
    if len(data) < num_bytes:
        raise EOFError
    return data


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # what was not written yet
                pipe.close()


def _gave_up(param: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"The document in `{param}` could not be read: it takes too much time or memory, or is broken. Print it to PDF "
        "again, or send the pages that matter.",
        reason="it takes too much time or memory to read, or is broken",
        param=param,
    )
