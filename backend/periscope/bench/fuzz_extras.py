"""Good files of the formats that need an extra: each is used only where the library that reads it is installed. Pure.

An archive is broken twice: as a whole, which its checksums give away at once, and in the XML inside of a whole one.
"""

from __future__ import annotations

import io
import zipfile
from functools import cache
from typing import TYPE_CHECKING

from periscope.bench.fuzz_pictures import drawn

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = "application/vnd.openxmlformats-officedocument"
_RELATIONS = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_NUM_FRAMES = 6


def archive(members: Mapping[str, bytes]) -> bytes:
    """Pure: a ZIP archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in members.items():
            made.writestr(zipfile.ZipInfo(name), data)  # with the time of 1980, so that it is the same each time
    return file.getvalue()


def docx_of(document: bytes) -> bytes:
    """Pure: a DOCX file around its main part."""
    return archive({**_package("word/document.xml", "wordprocessingml.document"), "word/document.xml": document})


@cache
def docx_xml() -> bytes:
    """A heading, a paragraph and a table."""
    cell = "<w:tc><w:p><w:r><w:t>17.40</w:t></w:r></w:p></w:tc>"
    return (
        '<?xml version="1.0" encoding="UTF-8"?><w:document '
        'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"><w:body>'
        '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>Invoice &amp; more</w:t></w:r></w:p>'
        f"<w:p><w:r><w:t>Thank you.</w:t></w:r></w:p><w:tbl><w:tr>{cell}{cell}</w:tr></w:tbl></w:body></w:document>"
    ).encode()


@cache
def docx() -> bytes:
    """A whole DOCX file."""
    return docx_of(docx_xml())


@cache
def xlsx() -> bytes:
    """A whole XLSX file of one sheet."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    sheet = (
        f'<worksheet xmlns="{main}"><sheetData><row r="1"><c r="A1" t="inlineStr"><is><t>Total</t></is></c>'
        '<c r="B1"><v>17.4</v></c></row></sheetData></worksheet>'
    )
    workbook = (
        f'<workbook xmlns="{main}" xmlns:r="{_RELATIONS}"><sheets><sheet name="S" sheetId="1" r:id="rId1"/></sheets>'
        "</workbook>"
    )
    return archive(
        {
            **_package("xl/workbook.xml", "spreadsheetml.sheet"),
            "xl/workbook.xml": workbook.encode(),
            "xl/_rels/workbook.xml.rels": _relation("worksheet", "worksheets/sheet1.xml"),
            "xl/worksheets/sheet1.xml": sheet.encode(),
        }
    )


def html() -> bytes:
    """A web page with a table, a picture and a script."""
    return (
        b"<!doctype html><html><head><title>Prices</title><script>var a = '<b>';</script></head><body><h1>Prices &amp; "
        b"more</h1><ul><li>One<li>Two</ul><table><tr><th>Total<td colspan=2>17.40</table><img src='a.png' alt='Logo'>"
        b"</body></html>"
    )


@cache
def heic() -> bytes:
    """A small picture as HEIC; needs `pillow_heif`."""
    from pillow_heif import from_pillow

    file = io.BytesIO()
    from_pillow(drawn()).save(file, quality=60)
    return file.getvalue()


@cache
def video() -> bytes:
    """Three seconds of MPEG-4; needs `av`."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("mpeg4", rate=2)
        stream.width, stream.height, stream.pix_fmt = *drawn().size, "yuv420p"
        for turned in range(_NUM_FRAMES):
            output.mux(stream.encode(av.VideoFrame.from_image(drawn().rotate(60 * turned))))
        output.mux(stream.encode())
    return file.getvalue()


def _package(part: str, kind: str) -> dict[str, bytes]:
    """What every Office file has: the type of its main part, and where that is."""
    types = (
        f'<Types xmlns="{_PACKAGE}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/{part}" ContentType="{_TYPES}.{kind}.main+xml"/></Types>'
    )
    return {"[Content_Types].xml": types.encode(), "_rels/.rels": _relation("officeDocument", part)}


def _relation(kind: str, target: str) -> bytes:
    relation = f'<Relationship Id="rId1" Type="{_RELATIONS}/{kind}" Target="{target}"/>'
    return f'<Relationships xmlns="{_PACKAGE}/relationships">{relation}</Relationships>'.encode()
