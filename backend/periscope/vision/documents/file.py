"""From a document as the client sent it to its bytes, and what kind of file they are. Pure.

The bytes decide: media types and names are often wrong. Nothing here opens a file or a connection.
"""

from __future__ import annotations

import binascii
import hashlib
import re
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.util import find_spec
from typing import Final

import pybase64

from periscope.core import FilePart
from periscope.errors import DocumentInvalid, FileInvalid, ImageInvalid, VideoInvalid
from periscope.vision.data_urls import decoded_base64, unescaped
from periscope.vision.documents.settings import DocumentSettings, HTMLMode
from periscope.vision.images.formats import format_of
from periscope.vision.videos.facts import HAS_VIDEO, container_of
from periscope.vision.videos.settings import VideoSettings

#: Whether the extra `office` is installed.
HAS_OFFICE: Final = all(map(find_spec, ("undoc", "markdownify")))
#: What error messages list.
TAKEN: Final = (
    f"Taken are PDF, {'DOCX, PPTX, XLSX, ' if HAS_OFFICE else ''}images, "
    f"{'videos (MP4, MOV, WebM, MKV, AVI), ' if HAS_VIDEO else ''}and text of every kind (plain, Markdown, CSV, JSON, "
    "HTML, XML, source code) in UTF-8, UTF-16 or Latin-1."
)
#: Enough for every media type with parameters.
_MAX_HEADER_CHARS: Final = 256
#: Enough to tell a video from an image. A multiple of four.
_HEAD_CHARS: Final = 1024
#: Readers of PDF find the header anywhere in the first kilobyte, and so do we.
_PDF: Final = re.compile(rb"[\s\S]{0,1019}?%PDF-")
_ZIP: Final = b"PK\x03\x04"
#: The member that every Office file has; its name stands in the archive as it is.
_OFFICE_MEMBER: Final = b"[Content_Types].xml"
_HTML: Final = re.compile(
    r"\s{0,999}(?:<\?xml[^>]{0,200}>\s{0,99})?(?:<!--[\s\S]{0,999}?-->\s{0,99}){0,9}<(?:!doctype\s+html|html)[\s>]",
    re.IGNORECASE,
)
#: Files that are often sent and not taken: a name, and how they begin.
_OTHERS: Final = (
    ("an Office file of before 2007, or one with a password", re.compile(rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")),
    ("an OpenDocument file", re.compile(rb"PK\x03\x04[\s\S]{26}mimetypeapplication/vnd\.oasis")),
    ("an RTF file", re.compile(rb"\{\\rtf")),
    ("a ZIP archive", re.compile(rb"PK\x03\x04")),
    ("a compressed archive", re.compile(rb"\x1f\x8b|BZh|7z\xbc\xaf|\xfd7zXZ|\x28\xb5\x2f\xfd")),
)
#: Control characters that stand in text.
_TEXT_CONTROLS: Final = frozenset(b"\t\n\v\f\r\x1b")


class FileKind(StrEnum):
    """How a file is read."""

    PDF = "pdf"
    OFFICE = "office"
    HTML = "html"
    PICTURE = "picture"
    VIDEO = "video"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """The content of one document.

    Attributes:
        data: of a PDF, an Office file or a video; empty otherwise.
        sha256: hex digest of the bytes of a file that has to be opened; "" otherwise.
        text: of a text or a web page.
        note: what the text model has to know of how the text was read.
    """

    kind: FileKind
    data: bytes = field(default=b"", repr=False)
    sha256: str = ""
    text: str = field(default="", repr=False)
    note: str = ""

    @property
    def is_video(self) -> bool:
        """Whether it is counted among the videos."""
        return self.kind is FileKind.VIDEO


def read_file(
    part: FilePart,
    settings: DocumentSettings,
    video: VideoSettings | None = None,
    *,
    has_office: bool = HAS_OFFICE,
    has_video: bool = HAS_VIDEO,
) -> DocumentFile:
    """Pure, may block: what the client sent, and what it is.

    Args:
        video: None = the model has no captioner, so videos are refused.
        has_office: Office files and web pages can be converted.
        has_video: videos can be decoded.

    Raises:
        DocumentInvalid: it is not in the request, no base64, empty, too large, or of a kind that is not taken.
        VideoInvalid: it is a video, which is too large, or cannot be taken.
    """
    if part.missing is not None:
        error = VideoInvalid if part.is_video else DocumentInvalid
        raise error(part.missing, reason="the attached file is unavailable", param=part.param)
    if part.text is not None:
        _document_bound(settings).check(len(part.text.encode(errors="surrogatepass")), part)
        return DocumentFile(FileKind.TEXT, text=part.text)
    if _begins_video(part.url or ""):
        return _video(part, video, has_video=has_video)
    data = _bytes_of(part.url or "", part, _document_bound(settings))
    return _told_by_bytes(data, part, settings, has_office=has_office)


def _begins_video(url: str) -> bool:
    """By the first bytes alone, because a video may be larger than a document."""
    comma = url.find(",", 0, _MAX_HEADER_CHARS)
    try:
        head = pybase64.b64decode(url[comma + 1 : comma + 1 + _HEAD_CHARS])
    except (binascii.Error, ValueError):
        return False
    return container_of(head) is not None


def _video(part: FilePart, settings: VideoSettings | None, *, has_video: bool) -> DocumentFile:
    if settings is None:
        raise _no_video("the model has no captioner. Set `capabilities.vision_mode: proxy` for it in models.yaml", part)
    if not has_video:
        raise _no_video("this server cannot decode it. Install `mlx-periscope[video]` there, or send images", part)
    data = _bytes_of(part.url or "", part, _Bound("video", settings.max_bytes, "video.max_bytes", VideoInvalid))
    return DocumentFile(FileKind.VIDEO, data, hashlib.sha256(data).hexdigest())


def _told_by_bytes(data: bytes, part: FilePart, settings: DocumentSettings, *, has_office: bool) -> DocumentFile:
    if _PDF.match(data):
        return DocumentFile(FileKind.PDF, data, hashlib.sha256(data).hexdigest())
    if data.startswith(_ZIP) and _OFFICE_MEMBER in data:
        if not has_office:
            raise _not_taken(
                "is an Office file. Save or print it as PDF and send that, or install `mlx-periscope[office]` on the "
                "server.",
                part,
            )
        return DocumentFile(FileKind.OFFICE, data, hashlib.sha256(data).hexdigest())
    other = next((name for name, magic in _OTHERS if magic.match(data)), None)
    if other is not None:
        raise _not_taken(f"is {other}, which is not taken. Save or print it as PDF and send that.", part)
    decoded = _decoded_text(data)
    if decoded is not None:
        return _text_file(data, *decoded, is_converted=has_office and settings.html is HTMLMode.TEXT)
    if _is_picture(data, part.param):
        return DocumentFile(FileKind.PICTURE)
    raise _not_taken("is no kind of file that is taken: it is binary, and no PDF or picture.", part)


def _text_file(data: bytes, text: str, note: str, *, is_converted: bool) -> DocumentFile:
    """A file of text. `is_converted`: a web page is to become Markdown."""
    if is_converted and _HTML.match(text):
        return DocumentFile(FileKind.HTML, sha256=hashlib.sha256(data).hexdigest(), text=text)
    return DocumentFile(FileKind.TEXT, text=text, note=note)


def _no_video(why: str, part: FilePart) -> VideoInvalid:
    return VideoInvalid(
        f"The video in `{part.param}` cannot be taken: {why}.", reason="videos are not taken", param=part.param
    )


def _not_taken(why: str, part: FilePart) -> DocumentInvalid:
    name = f" ({part.name[:100]})" if part.name else ""
    return DocumentInvalid(
        f"The document in `{part.param}`{name} {why} {TAKEN}", reason="its format is not taken", param=part.param
    )


@dataclass(frozen=True, slots=True)
class _Bound:
    """How large files of a kind may be, and how errors about them are told."""

    kind: str
    max_bytes: int
    setting: str
    error: type[FileInvalid]

    def invalid(self, why: str, part: FilePart, reason: str) -> FileInvalid:
        return self.error(f"The {self.kind} in `{part.param}` {why}", reason=reason, param=part.param)

    def check(self, num_bytes: int, part: FilePart) -> None:
        """Raises FileInvalid if it is larger."""
        if num_bytes > self.max_bytes:
            raise self.invalid(
                f"has {num_bytes:,} bytes; at most {self.max_bytes:,} are taken (`{self.setting}`). Send it smaller, "
                "or in several files.",
                part,
                "it is too large",
            )


def _document_bound(settings: DocumentSettings) -> _Bound:
    return _Bound("document", settings.max_bytes, "max_document_bytes", DocumentInvalid)


def _bytes_of(url: str, part: FilePart, bound: _Bound) -> bytes:
    url = url.strip()
    comma = url.find(",", 0, _MAX_HEADER_CHARS)
    if not url[:5].lower() == "data:" or comma < 0:
        raise bound.invalid(
            "is no data: URL. Send it as `data:application/pdf;base64,` and the bytes; addresses and paths are never "
            "read.",
            part,
            "the attached file is unavailable",
        )
    attributes = [attribute.strip().lower() for attribute in url[:comma].split(";")]
    start = comma + 1
    bound.check((len(url) - start) * 3 // 4 - 2, part)
    data = _from_base64(url, start, part, bound) if "base64" in attributes[1:] else b"".join(unescaped(url, start))
    if not data:
        raise bound.invalid("is empty.", part, "it is empty")
    bound.check(len(data), part)
    return data


def _from_base64(url: str, start: int, part: FilePart, bound: _Bound) -> bytes:
    try:
        return b"".join(decoded_base64(url, start))
    except ValueError:
        raise bound.invalid(
            "is not valid base64. It may be cut off or encoded twice; encode its bytes again.",
            part,
            "it is broken or cut off",
        ) from None


def _decoded_text(data: bytes) -> tuple[str, str] | None:
    """The text of these bytes and a note on its encoding; None if they are no text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16"), ""
        except UnicodeDecodeError:
            return None
    if b"\0" in data:
        return None
    try:
        return data.decode("utf-8-sig"), ""
    except UnicodeDecodeError:
        pass
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in set(data)):
        return None
    return data.decode("latin-1"), "read as Latin-1"


def _is_picture(data: bytes, param: str) -> bool:
    try:
        format_of(data, param=param)
    except ImageInvalid:
        return False
    return True
