"""Pictures and other files of a program as parts of a message. Nothing is decoded here."""

from __future__ import annotations

import io
import mimetypes
from os import PathLike
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from pybase64 import b64encode

from periscope.core import FilePart, ImagePart
from periscope.errors import FileInvalid, ImageInvalid, RequestError

_URL_SCHEMES: Final = ("data:", "http:", "https:")
#: The highest `max_bytes` of pictures and documents that models.yaml takes: a larger file is not even read.
_MAX_FILE_BYTES: Final = 2**30


class SavesItself(Protocol):
    """A decoded picture that can write itself as a file, as a `PIL.Image.Image` can."""

    def save(self, fp: io.BytesIO, format: str) -> None:  # noqa: A002 - Pillow's name
        ...


#: A file by its path, the bytes of a file, a picture of Pillow's, a `data:` or http(s) URL, or a part that is one.
Picture: TypeAlias = str | PathLike[str] | bytes | SavesItself | ImagePart


def picture(source: Picture, param: str = "image") -> ImagePart:
    """A picture as a part of a message. Blocks while a file is read or a picture of Pillow's is written as PNG.

    Args:
        source: a `str` that begins with `data:`, `http:` or `https:` is a URL, any other one a path. Addresses of the
            web are fetched if `server.remote_images` in models.yaml allows it.
        param: what errors call the picture.

    Raises:
        ImageInvalid: the file cannot be read or is too large, or the picture cannot be written. What is in it is
            checked when the message is answered.
    """
    if isinstance(source, ImagePart):
        return source
    if isinstance(source, str) and source.lower().startswith(_URL_SCHEMES):
        return ImagePart(source, param)
    if isinstance(source, (str, PathLike)):
        path = Path(source)
        data = _read(path, param, ImageInvalid)
        if data.startswith(b"%PDF-"):
            told = f"`{param}`: {path} is a PDF. Show it in a message, as `attachment({path.name!r})`."
            raise ImageInvalid(told, param=param)
        return ImagePart(_data_url(data, _kind_of(path)), param)
    if isinstance(source, bytes):
        return ImagePart(_data_url(source), param)
    if not hasattr(source, "save"):
        raise ImageInvalid(
            f"`{param}` is a {type(source).__name__}. It must be a path, bytes, a URL or a picture of Pillow's.",
            param=param,
        )
    file = io.BytesIO()
    try:
        source.save(file, "PNG")
    except (OSError, ValueError) as error:  # a colour space that PNG does not have, a closed file
        told = f"`{param}` cannot be written as PNG: {error}. Give it as `picture.convert('RGB')`."
        raise ImageInvalid(told, param=param) from error
    return ImagePart(_data_url(file.getvalue(), "image/png"), param)


def attachment(path: str | PathLike[str], param: str = "file") -> FilePart:
    """A file of any kind as a part of a message: PDF, Office, text, video, picture. Blocks while it is read.

    The text of a document stands in the prompt, and its pictures and scanned pages are described.

    Args:
        param: what errors call the file.

    Raises:
        FileInvalid: the file cannot be read or is too large. What is in it is checked when the message is answered.
    """
    path = Path(path)
    kind = _kind_of(path)
    url = _data_url(_read(path, param, FileInvalid), kind)
    return FilePart(param, path.name, url, is_video=kind is not None and kind.startswith("video/"))


def _kind_of(path: Path) -> str | None:
    return mimetypes.guess_type(path.name)[0]


def _read(path: Path, param: str, error: type[RequestError]) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise error(f"`{param}`: there is no file {path}.", param=param) from None
    except OSError as cause:
        raise error(f"`{param}`: {path} cannot be read: {cause.strerror}.", param=param) from None
    if len(data) > _MAX_FILE_BYTES:
        limit = f"{_MAX_FILE_BYTES >> 20} MiB, the limit of a file"
        raise error(f"`{param}`: {path} has more than {limit}. Make it smaller.", param=param)
    return data


def _data_url(data: bytes, kind: str | None = None) -> str:
    return f"data:{kind or 'application/octet-stream'};base64,{b64encode(data).decode('ascii')}"
