"""Reads and draws the pages of PDF files. The only module that uses PDFium.

It runs in a process of its own (`program.py`), on the main thread: PDFium knows no threads, and a hostile file can
crash it or make it take any amount of memory. The server asks through `DocumentProcess`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from ctypes import c_float
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

from periscope.errors import DocumentInvalid
from periscope.vision.documents.settings import DocumentSettings

if TYPE_CHECKING:
    from pypdfium2 import PdfDocument, PdfObject, PdfPage

#: Part of the identity of a drawn page: increase it when pages are drawn differently.
_DRAWING_VERSION: Final = 2
#: A page is shown as a picture beside its text if pictures and drawings cover this share of it: a plot in a column of a
#: paper does, a logo in a letter's head does not ...
_FIGURE_SHARE: Final = 0.05
#: ... or if it has at least so many lines and curves, as charts and drawings have. Tables have a few dozen.
_FIGURE_PATHS: Final = 300
#: A line slants if it rises by more than this share of its length; tables, rules and bars have level and upright ones.
_SLANT: Final = 0.05
#: How much of each line or curve is examined.
_MAX_SEGMENTS: Final = 50
#: How many objects of a page are examined, and down to which depth of nested forms.
_MAX_OBJECTS: Final = 5000
_MAX_DEPTH: Final = 4
#: The short side of thinner pages would be too small for the patches of captioners.
_MAX_ASPECT: Final = 30


@dataclass(frozen=True, slots=True)
class PageContent:
    """One page as its file describes it.

    Attributes:
        text: its text layer, in PDFium's order.
        width, height: in points, as the page is shown.
        has_figures: it has an image, a drawing or form fields.
        is_blank: it is empty.
    """

    text: str
    width: float
    height: float
    has_figures: bool = False
    is_blank: bool = False


@dataclass(frozen=True, slots=True)
class PageFile:
    """A page that can be drawn, and what identifies its picture without drawing it.

    Attributes:
        data: the whole PDF.
        index: of the page, from 0.
        width, height: in pixels, at most.
        param: the document's place in the request.
        max_seconds: how long drawing may take.
    """

    data: bytes = field(repr=False)
    file_sha256: str
    index: int
    width: int
    height: int
    param: str
    max_seconds: float

    @property
    def facts(self) -> str:
        """Everything that its pixels depend on, except scaling down; the same in every process."""
        return f"pdf-page {_DRAWING_VERSION} {self.file_sha256} {self.index} {self.width}x{self.height}"


def read_pages(data: bytes, settings: DocumentSettings, *, param: str) -> tuple[PageContent, ...]:
    """Blocks: what each page of a PDF holds. Nothing is drawn.

    Raises:
        DocumentInvalid: encrypted, broken, too many pages, or it takes too long.
    """
    with _opened(data, param) as document:
        num_pages = len(document)
        check_num_pages(num_pages, settings, param=param)
        deadline = time.monotonic() + settings.max_seconds
        pages = []
        for index in range(num_pages):
            if time.monotonic() > deadline:
                raise _too_slow(param, f"page {index + 1} of {num_pages}", settings.max_seconds)
            with closing(document.get_page(index)) as page:
                pages.append(_content(page))
        return tuple(pages)


def check_num_pages(num_pages: int, settings: DocumentSettings, *, param: str) -> None:
    """Pure: check the number of pages.

    Raises:
        DocumentInvalid: there are more pages than the limit.
    """
    if num_pages > settings.max_pages:
        raise DocumentInvalid(
            f"The document in `{param}` has {num_pages:,} pages; at most {settings.max_pages:,} are taken "
            "(`max_document_pages`). Send the pages that matter, in several files if need be.",
            reason=f"it has {num_pages} pages, and at most {settings.max_pages} are taken",
            param=param,
        )


def page_file(
    data: bytes, file_sha256: str, index: int, content: PageContent, settings: DocumentSettings, *, param: str
) -> PageFile:
    """Pure: the page as a picture whose longer side is `settings.max_page_px`.

    Raises:
        DocumentInvalid: its size is not that of a page.
    """
    width, height = content.width, content.height
    if not (min(width, height) > 0 and max(width, height) <= _MAX_ASPECT * min(width, height)):
        raise DocumentInvalid(
            f"Page {index + 1} of the document in `{param}` is {width:g} x {height:g} points; such a strip cannot be "
            "shown. Print the document to PDF with an ordinary page size, or send its text.",
            reason=f"its page {index + 1} is a strip of {width:g} x {height:g} points",
            param=param,
        )
    scale = settings.max_page_px / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return PageFile(data, file_sha256, index, *size, param=param, max_seconds=settings.max_seconds)


def drawn_size(page: PageFile, max_side_px: int) -> tuple[int, int]:
    """Pure: width and height of the page's picture, scaled down to `max_side_px`."""
    scale = min(1.0, max_side_px / max(page.width, page.height))
    return max(1, round(page.width * scale)), max(1, round(page.height * scale))


def draw(page: PageFile, max_side_px: int) -> bytes:
    """Blocks: the page's pixels, three bytes each, row by row, in `drawn_size`.

    Raises:
        DocumentInvalid: it cannot be drawn, or drawing takes too long.
    """
    with _opened(page.data, page.param) as document:
        document.init_forms()  # before any page is there; without it forms are drawn without what was filled in
        with closing(document.get_page(page.index)) as shown:
            return _drawn(shown, *drawn_size(page, max_side_px), page)


@contextmanager
def _opened(data: bytes, param: str) -> Iterator[PdfDocument]:
    """The open file, closed at exit. All that PDFium raises is the fault of the file, which the client sent."""
    from pypdfium2 import PdfDocument, PdfiumError

    try:
        with closing(PdfDocument(data)) as document:
            yield document
    except PdfiumError as error:
        raise _unreadable(error, param) from error


def _unreadable(error: Exception, param: str) -> DocumentInvalid:
    from pypdfium2 import raw

    code = getattr(error, "err_code", None)
    if code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY):
        return DocumentInvalid(
            f"The document in `{param}` is encrypted, and passwords are not taken. Save it without a password, "
            "and send that.",
            reason="it is encrypted",
            param=param,
        )
    return DocumentInvalid(
        f"The document in `{param}` could not be read as a PDF: it is broken, cut off or has no pages. "
        "Save or print it to PDF again, and send that.",
        reason="it is broken or cut off",
        param=param,
    )


def _too_slow(param: str, where: str, max_seconds: float) -> DocumentInvalid:
    return DocumentInvalid(
        f"The document in `{param}` takes more than {max_seconds:g} s to read ({where}). Print it to PDF again, or "
        "send the pages that matter.",
        reason="reading it takes too long",
        param=param,
    )


def _content(page: PdfPage) -> PageContent:
    from pypdfium2 import raw

    with closing(page.get_textpage()) as layer:
        text = layer.get_text_range() if layer.count_chars() > 0 else ""
    width, height = page.get_size()
    num_annotations = raw.FPDFPage_GetAnnotCount(page)
    is_blank = raw.FPDFPage_CountObjects(page) == 0 and num_annotations == 0
    return PageContent(text, width, height, _has_figures(page, num_annotations), is_blank)


def _has_figures(page: PdfPage, num_annotations: int) -> bool:
    from pypdfium2 import raw

    width, height = page.get_size()
    share, num_paths = 0.0, 0
    kinds = (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_PATH)
    for each in islice(page.get_objects(kinds, max_depth=_MAX_DEPTH), _MAX_OBJECTS):
        if each.type == raw.FPDF_PAGEOBJ_PATH:
            num_paths += 1
            if num_paths >= _FIGURE_PATHS:
                return True
            if not _is_drawing(each):
                continue
        left, bottom, right, top = each.get_bounds()
        seen = max(0.0, min(right, width) - max(left, 0.0)) * max(0.0, min(top, height) - max(bottom, 0.0))
        share += seen / max(1.0, width * height)
        if share >= _FIGURE_SHARE:
            return True
    return _has_fields(page, num_annotations)


def _is_drawing(path: PdfObject) -> bool:
    """Whether a path has a curve or a line that slants, as a plot has."""
    from pypdfium2 import raw

    from_x = from_y = 0.0
    for index in range(min(raw.FPDFPath_CountSegments(path), _MAX_SEGMENTS)):
        segment, x, y = raw.FPDFPath_GetPathSegment(path, index), c_float(), c_float()
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_BEZIERTO:
            return True
        raw.FPDFPathSegment_GetPoint(segment, x, y)
        across, up = abs(x.value - from_x), abs(y.value - from_y)
        if kind == raw.FPDF_SEGMENT_LINETO and min(across, up) > _SLANT * max(across, up):
            return True
        from_x, from_y = x.value, y.value
    return False


def _has_fields(page: PdfPage, num_annotations: int) -> bool:
    """Whether the page has form fields, whose values are not in its text layer."""
    from pypdfium2 import raw

    for index in range(min(num_annotations, _MAX_OBJECTS)):
        annotation = raw.FPDFPage_GetAnnot(page, index)
        if not annotation:
            continue
        kind = raw.FPDFAnnot_GetSubtype(annotation)
        raw.FPDFPage_CloseAnnot(annotation)
        if kind == raw.FPDF_ANNOT_WIDGET:
            return True
    return False


def _drawn(shown: PdfPage, width: int, height: int, page: PageFile) -> bytes:
    """The pixels, three bytes each. PDFium asks now and then whether to go on, so that drawing ends in time."""
    from pypdfium2 import PdfBitmap, raw

    deadline = time.monotonic() + page.max_seconds
    pause = raw.IFSDK_PAUSE(version=1)
    is_over = type(pause.NeedToPauseNow)(lambda _: int(time.monotonic() > deadline))
    pause.NeedToPauseNow = is_over
    with closing(PdfBitmap.new_native(width, height, raw.FPDFBitmap_BGR, rev_byteorder=True)) as bitmap:
        bitmap.fill_rect((255, 255, 255, 255), 0, 0, width, height)
        flags = raw.FPDF_ANNOT | raw.FPDF_REVERSE_BYTE_ORDER
        status = raw.FPDF_RenderPageBitmap_Start(bitmap, shown, 0, 0, width, height, 0, flags, pause)
        raw.FPDF_RenderPage_Close(shown)
        if (form := shown.formenv) is not None and status == raw.FPDF_RENDER_DONE:
            raw.FPDF_FFLDraw(form, bitmap, shown, 0, 0, width, height, 0, flags)
        rgb = bytes(bitmap.buffer)
    if status == raw.FPDF_RENDER_TOBECONTINUED:
        raise _too_slow(page.param, f"page {page.index + 1}", page.max_seconds)
    if status != raw.FPDF_RENDER_DONE:
        raise DocumentInvalid(
            f"Page {page.index + 1} of the document in `{page.param}` could not be drawn. Print it to PDF again.",
            reason=f"its page {page.index + 1} could not be drawn",
            param=page.param,
        )
    return rgb
