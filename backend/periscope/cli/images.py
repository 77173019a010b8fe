"""Files on the command line as data URLs. Their content is checked where it is decoded."""

from __future__ import annotations

import base64
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.core import FilePart, ImagePart

#: Those that `mimetypes` does not know everywhere.
_IMAGE_SUFFIXES: Final = (".avif", ".heic", ".heif", ".webp")


def image_parts(files: Sequence[Path]) -> list[ImagePart]:
    """One part per file, in order. Errors name the file.

    Raises:
        CommandFailed: a file cannot be read; exit code 2, and nothing was sent anywhere.
    """
    return [ImagePart(_data_url(file), param=str(file)) for file in files]


def attached_parts(files: Sequence[Path]) -> list[ImagePart | FilePart]:
    """One part per file, in order: an image by the type that its name says, or a file of any other kind.

    Raises:
        CommandFailed: as `image_parts`.
    """
    return [
        ImagePart(_data_url(file), param=str(file))
        if _is_image(file)
        else FilePart(str(file), file.name, _data_url(file))
        for file in files
    ]


def _is_image(file: Path) -> bool:
    mime, _ = mimetypes.guess_type(file.name)
    return (mime or "").startswith("image/") or file.suffix.lower() in _IMAGE_SUFFIXES


def _data_url(file: Path) -> str:
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        if file.parts[:1] in (("http:",), ("https:",)):
            raise CommandFailed(
                f"{file.parts[0]}//{'/'.join(file.parts[1:])} is an address, and only files are taken here: download "
                "it and name the file.",
                ExitCode.USAGE,
            ) from None
        raise CommandFailed(f"There is no file {file}.", ExitCode.USAGE) from None
    except OSError as error:
        raise CommandFailed(f"Cannot read {file}: {error.strerror}.", ExitCode.USAGE) from None
    mime, _ = mimetypes.guess_type(file.name)
    return f"data:{mime or 'application/octet-stream'};base64,{base64.b64encode(data).decode('ascii')}"
