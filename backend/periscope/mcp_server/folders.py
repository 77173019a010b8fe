"""The folders whose files a client of the MCP server may have read, and how a file becomes a part of a message."""

from __future__ import annotations

import mimetypes
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from pybase64 import b64encode

from periscope.core import ImagePart
from periscope.errors import ImageInvalid, ImageSourceRefused

#: A larger file is not read. What the server takes is bounded further by `max_image_bytes` of models.yaml.
MAX_FILE_BYTES: Final = 64 * 2**20
_MAX_SHOWN: Final = 200
#: Base64 of a PNG, a JPEG, a GIF, a WebP, a TIFF, a HEIC or an AVIF. No path has neither a dot nor a dash in so many
#: characters.
_BASE64: Final = re.compile(r"(?:iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkq|TU0A|AAAA..Z0eXB)[A-Za-z0-9+/]{90}")
_URL_SCHEMES: Final = ("data:", "http:", "https:")


class AllowedFolders:
    """Owns the folders that the user has allowed. Pure but for the file system, which its methods may block on.

    Args:
        folders: existing folders. Symbolic links are resolved, in them and in every path below them, before a path is
            compared: a link to a file outside is refused.
        way: by which the user allows a folder, for the agent whose file is in none.
    """

    def __init__(self, folders: Iterable[Path] = (), way: str = "start `periscope mcp` with `--allow FOLDER`") -> None:
        self.folders: Final = tuple(folder.resolve() for folder in folders)
        self._way = way

    def image(self, source: str, roots: Sequence[str] = ()) -> ImagePart:
        """An image that a client names.

        Args:
            source: a `data:` or http(s) URL, which the server checks by its own rules, or base64; else a path or a
                `file:` URL. A relative path is looked for in each folder.
            roots: `file:` URLs of the folders that the client shares, allowed beside those of the user.

        Raises:
            ImageSourceRefused: the file is in none of the folders.
            ImageInvalid: there is no such file, or it cannot be read.
        """
        source = source.strip()
        if source.lower().startswith(_URL_SCHEMES):
            return ImagePart(source, "image")
        if _BASE64.match(source):
            return ImagePart(f"data:application/octet-stream;base64,{source}", "image")
        if not source or "\0" in source:
            raise ImageInvalid(
                "`image` names nothing. Give the path of an image file, a data: URL or an http(s) address.",
                param="image",
            )
        folders = (*self.folders, *_folders_of(roots))
        return ImagePart(_data_url(_allowed_file(_path_of(source), folders, self._way)), "image")


def _folders_of(roots: Sequence[str]) -> Iterator[Path]:
    for root in roots:
        try:
            yield _path_of(root).resolve()
        except (ImageInvalid, OSError, ValueError):
            continue


def _path_of(source: str) -> Path:
    """Raises `ImageInvalid` for a URL of another scheme, and for a file of another machine."""
    if "://" not in source and not source.lower().startswith("file:"):
        return Path(os.path.expanduser(source))  # noqa: PTH111 - leaves the name of an unknown user as it is
    try:
        url = urlsplit(source)
    except ValueError:
        raise ImageInvalid("`image` is no URL that can be read.", param="image") from None
    if url.scheme.lower() != "file" or url.netloc not in ("", "localhost"):
        raise ImageInvalid(
            f"`image` begins with {url.scheme[:20]}://{url.netloc[:40]}. It must be a path or file: URL of this "
            "machine, a data: URL or an http(s) address.",
            param="image",
        )
    return Path(unquote(url.path))


def _allowed_file(path: Path, folders: Sequence[Path], way: str) -> Path:
    """The file itself, with all links resolved.

    What is outside is refused before it is looked at, so that nobody learns what is there.
    """
    candidates = [path] if path.is_absolute() else [folder / path for folder in folders]
    resolved = map(_resolved, candidates)
    inside = [file for file in resolved if any(file.is_relative_to(folder) for folder in folders)]
    if not inside:
        allowed = ", ".join(map(str, folders)) or "none so far"
        raise ImageSourceRefused(
            f"`image`: {_shown(path)} is outside of the folders whose files may be read ({allowed}). Use a file in one "
            f"of them, give the image as a data: URL, or ask the user to {way}.",
            param="image",
        )
    return next((file for file in inside if os.path.isfile(file)), inside[0])  # noqa: PTH113 - raises nothing


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):  # links that lead in a circle
        raise ImageInvalid(f"`image`: {_shown(path)} cannot be resolved to a file.", param="image") from None


def _shown(path: Path) -> str:
    """A path in a message, its end if it is long."""
    text = str(path)
    return text if len(text) <= _MAX_SHOWN else f"...{text[-_MAX_SHOWN:]}"


def _data_url(path: Path) -> str:
    kind, _ = mimetypes.guess_type(path.name)
    return f"data:{kind or 'application/octet-stream'};base64,{b64encode(_read(path)).decode('ascii')}"


def _read(path: Path) -> bytes:
    """A regular file's bytes. What is put in its place meanwhile, a link or a pipe, is not followed or waited for."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:  # noqa: PTH123 - by its descriptor
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ImageInvalid(f"`image`: {_shown(path)} is not a file.", param="image")
            data = file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise ImageInvalid(f"`image`: there is no file {_shown(path)}.", param="image") from None
    except OSError as error:
        raise ImageInvalid(f"`image`: {_shown(path)} cannot be read: {error.strerror}.", param="image") from None
    if len(data) > MAX_FILE_BYTES:
        raise ImageInvalid(
            f"`image`: {_shown(path)} has more than {MAX_FILE_BYTES >> 20} MiB, the limit. Make the image smaller.",
            param="image",
        )
    return data
