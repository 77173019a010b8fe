"""What is piped into a command, such as a log or a screenshot. Blocks until all of it is there."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import Final

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.core import ImagePart
from periscope.errors import ImageInvalid

#: As large as a request may be unless models.yaml says otherwise; no prompt is as long.
MAX_PIPED_BYTES: Final = 64 * 1024 * 1024
PARAM: Final = "stdin"


def piped() -> str | ImagePart | None:
    """The text or the picture on stdin; None if nobody pipes anything, or nothing but white space.

    Raises:
        CommandFailed: it is neither, or too large; exit code 2.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return None
    data = sys.stdin.buffer.read(MAX_PIPED_BYTES + 1)
    if len(data) > MAX_PIPED_BYTES:
        limit = f"{MAX_PIPED_BYTES >> 20} MiB"
        raise CommandFailed(f"More than {limit} come from stdin. Send less, such as the end of it.", ExitCode.USAGE)
    return _read(data)


def _read(data: bytes) -> str | ImagePart | None:
    """Pure. A text may hold bytes that are no UTF-8, as logs do; a picture begins as one."""
    try:
        return data.decode("utf-8").strip() or None
    except UnicodeDecodeError:
        pass
    if _is_picture(data):
        return ImagePart(f"data:application/octet-stream;base64,{b64encode(data).decode('ascii')}", PARAM)
    if b"\0" in data:
        raise CommandFailed("What comes from stdin is neither text nor a picture that can be read.", ExitCode.USAGE)
    return data.decode("utf-8", "replace").strip()


def _is_picture(data: bytes) -> bool:
    from periscope.vision.images.formats import format_of

    try:
        format_of(data, param=PARAM)
    except ImageInvalid:
        return False
    return True
