"""DocumentProcess has documents opened in a process of its own. Its calls block, so they run in executor threads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from periscope.core import Image
from periscope.errors import DocumentInvalid
from periscope.vision.documents.pdf import PageContent, PageFile, drawn_size
from periscope.vision.documents.settings import DocumentSettings
from periscope.vision.file_process import GRACE_S, FileProcess, FileProcessFailed

_PROGRAM: Final = Path(__file__).with_name("program.py")


@dataclass(frozen=True, slots=True)
class ConvertedText:
    """What a document says, as Markdown, and a note on how it was read."""

    text: str
    note: str


class DocumentProcess:
    """Owns the process for documents, which knows PDFium and the converters of Office files and web pages."""

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._process = FileProcess(_PROGRAM, grace_s=grace_s)

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
        """Draw the picture of one page.

        Raises:
            DocumentInvalid: it cannot be drawn, or takes too much time or memory.
            ServerBusy: other documents were being read all the time.
        """
        width, height = drawn_size(page, max_side_px)
        _, rgb = self._asked(("draw", page, max_side_px), page.max_seconds, page.param)
        if len(rgb) != 3 * width * height:
            raise _gave_up(page.param)
        return Image(rgb, width, height, source_width=page.width, source_height=page.height, sha256=sha256)

    def office_text(self, data: bytes, settings: DocumentSettings, *, param: str) -> ConvertedText:
        """What an Office file says.

        Raises:
            DocumentInvalid: of another kind, encrypted, broken, or it unpacks to too much or takes too much time.
            ServerBusy: other documents were being read all the time.
        """
        head, _ = self._asked(("office", data, param), settings.max_seconds, param)
        return ConvertedText(str(head.get("text", "")), str(head.get("note", "")))

    def html_text(self, text: str, settings: DocumentSettings, *, param: str) -> ConvertedText:
        """What a web page says.

        Raises:
            DocumentInvalid: it is nested too deep, or takes too much time or memory.
            ServerBusy: other documents were being read all the time.
        """
        head, _ = self._asked(("html", text, param), settings.max_seconds, param)
        return ConvertedText(str(head.get("text", "")), "converted from HTML")

    def _asked(self, request: object, max_seconds: float, param: str) -> tuple[dict[str, Any], bytes]:
        try:
            head, pixels = self._process.ask(request, max_seconds=max_seconds)
        except FileProcessFailed as error:
            raise _gave_up(param) from error
        if "error" in head:
            raise DocumentInvalid(str(head["error"]), reason=str(head.get("reason")), param=param)
        return head, pixels


def _gave_up(param: str) -> DocumentInvalid:
    return DocumentInvalid(
        f"The document in `{param}` could not be read: it takes too much time or memory, or is broken. Print it to PDF "
        "again, or send the pages that matter.",
        reason="it takes too much time or memory to read, or is broken",
        param=param,
    )
