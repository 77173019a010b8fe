"""What the programs of `FileProcess` share: requests come on standard input, and answers go to standard output.

Such a process is ended by the end of its input. Its memory is limited where the system can (not on macOS), so that a
file that unpacks to any size ends this process and not the server.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import IO, Any, Final, TypeAlias

from periscope.errors import FileInvalid
from periscope.standard_streams import never_wait_for_readers

#: Address space; Python, the libraries and the largest picture that is drawn take a quarter of it.
_MAX_MEMORY_BYTES: Final = 2 * 1024**3

#: What a program writes before its answers, once it has imported what it needs.
READY: Final = b"\x01"

Answer: TypeAlias = tuple[dict[str, Any], bytes]


def answer_requests(answer: Callable[[Any], Answer]) -> None:
    """Answer until the input ends; a file that cannot be taken is an answer, too.

    Args:
        answer: makes facts and bytes of a request; raises `FileInvalid`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole group; the server decides when it ends
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a library prints is no answer
    never_wait_for_readers("stdout", "stderr")
    _limit_memory()
    answers.write(READY)
    answers.flush()
    while len(size := sys.stdin.buffer.read(8)) == 8:
        request = pickle.loads(sys.stdin.buffer.read(int.from_bytes(size, "big")))  # noqa: S301 - the server wrote it
        try:
            facts, data = answer(request)
        except FileInvalid as error:
            facts, data = {"error": error.message, "reason": error.reason}, b""
        _send(answers, facts, data)


def _send(answers: IO[bytes], facts: object, data: bytes) -> None:
    words = json.dumps(facts).encode()
    answers.write(len(words).to_bytes(8, "big") + len(data).to_bytes(8, "big"))
    answers.write(words)
    answers.write(data)
    answers.flush()


def _limit_memory() -> None:
    import resource

    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
