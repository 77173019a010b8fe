"""Office files and web pages as Markdown. The only module that uses `undoc` and `markdownify`, of the extra `office`.

It runs in the documents' process. What an archive unpacks to is summed from its directory and then checked against
what really comes out, before the converter sees any of it.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from typing import Final

from periscope.errors import DocumentInvalid

#: A presentation of hundreds of photos stays below: they are stored as they are, and a file has 32 MiB unless set.
_MAX_UNPACKED_BYTES: Final = 256 * 1024 * 1024
_MAX_MEMBERS: Final = 10_000
#: More than any setting lets through.
_MAX_CHARS: Final = 10_000_000
#: The folder in which each kind keeps its content.
_KINDS: Final = (("word/", "DOCX"), ("ppt/", "PPTX"), ("xl/", "XLSX"))


def office_markdown(data: bytes, *, param: str) -> tuple[str, str]:
    """Blocks: the text of a DOCX, PPTX or XLSX file, and a note on how it was read.

    Raises:
        DocumentInvalid: of another kind, encrypted, broken, or it unpacks to too much.
    """
    from undoc import UndocError, parse_bytes

    kind = _checked_kind(data, param)
    try:
        with parse_bytes(data) as document:
            text, num_pictures = document.to_markdown(include_images=False), document.resource_count
    except UndocError as error:
        raise _broken(param) from error
    pictures = f" without its {num_pictures} picture{'s'[: num_pictures - 1]}" if num_pictures else ""
    return _bounded(text, param), f"converted from {kind}{pictures}"


def html_markdown(text: str, *, param: str) -> str:
    """Blocks: what a reader of a web page sees, as Markdown.

    Raises:
        DocumentInvalid: it is nested too deep, or says too much.
    """
    from bs4 import BeautifulSoup
    from markdownify import ATX, MarkdownConverter

    try:
        page = BeautifulSoup(text, "html.parser")
        for picture in page("img"):  # often a data: URL of a megabyte
            picture.replace_with(picture.get("alt") or "")
        title = "" if page.title is None else page.title.extract().get_text(strip=True)
        markdown = MarkdownConverter(heading_style=ATX, bullets="-").convert_soup(page)
        return _bounded(f"{title}\n\n{markdown.strip()}".lstrip(), param)
    except RecursionError as error:
        raise DocumentInvalid(
            f"The document in `{param}` is a web page whose elements are nested too deep. Print it to PDF, or set "
            "`html: source` to have it read as it is.",
            reason="its elements are nested too deep",
            param=param,
        ) from error


def _checked_kind(data: bytes, param: str) -> str:
    """The kind of the file, when all that it unpacks to is known to be bounded and whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            num_bytes = sum(member.file_size for member in members)
            if num_bytes > _MAX_UNPACKED_BYTES or len(members) > _MAX_MEMBERS:
                raise _too_large(len(members), num_bytes, param)
            kind = next((name for folder, name in _KINDS if any(m.filename.startswith(folder) for m in members)), None)
            if archive.testzip() is not None:
                raise _broken(param)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise _broken(param) from error
    if kind is None:
        raise DocumentInvalid(
            f"The document in `{param}` is an Office file of another kind than DOCX, PPTX and XLSX. Save or print it "
            "as PDF and send that.",
            reason="its format is not taken",
            param=param,
        )
    return kind


def _bounded(text: str, param: str) -> str:
    if len(text) > _MAX_CHARS:
        raise DocumentInvalid(
            f"The document in `{param}` has {len(text):,} characters of text; at most {_MAX_CHARS:,} are taken. Send "
            "the part that matters.",
            reason="it has too much text",
            param=param,
        )
    return text


def _too_large(num_members: int, num_bytes: int, param: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"The document in `{param}` unpacks to {num_bytes:,} bytes in {num_members:,} files; at most "
        f"{_MAX_UNPACKED_BYTES:,} bytes in {_MAX_MEMBERS:,} files are read. Save or print it as PDF and send that.",
        reason="it unpacks to too much",
        param=param,
    )


def _broken(param: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"The document in `{param}` could not be read as an Office file: it is broken, cut off or encrypted. Save it "
        "again without a password, or print it to PDF.",
        reason="it is broken, cut off or encrypted",
        param=param,
    )
