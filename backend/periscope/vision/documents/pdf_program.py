"""The process in which PDFium works: it reads requests from standard input and answers on standard output.

It is ended by the end of its input. Its memory is limited where the system can (not on macOS), so that a file that
unpacks to any size ends this process and not the server.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from contextlib import suppress
from typing import IO, Final

from periscope.errors import DocumentInvalid
from periscope.vision.documents.pdf import draw, read_pages

#: Address space; PDFium, Python and the largest page that is drawn take a tenth of it.
_MAX_MEMORY_BYTES: Final = 2 * 1024**3


def main() -> None:
    """Answer until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the server decides when it ends
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    _limit_memory()
    while len(size := sys.stdin.buffer.read(8)) == 8:
        request = pickle.loads(sys.stdin.buffer.read(int.from_bytes(size, "big")))  # noqa: S301 - the server wrote it
        try:
            match request:
                case ("read", data, settings, param):
                    pages = read_pages(data, settings, param=param)
                    facts = [[p.text, p.width, p.height, p.has_figures, p.is_blank] for p in pages]
                    _answer(answers, {"pages": facts})
                case ("draw", page, max_side_px):
                    _answer(answers, {}, draw(page, max_side_px))
        except DocumentInvalid as error:
            _answer(answers, {"error": error.message, "reason": error.reason})


def _answer(answers: IO[bytes], head: object, pixels: bytes = b"") -> None:
    words = json.dumps(head).encode()
    answers.write(len(words).to_bytes(8, "big") + len(pixels).to_bytes(8, "big"))
    answers.write(words)
    answers.write(pixels)
    answers.flush()


def _limit_memory() -> None:
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))


if __name__ == "__main__":
    main()
