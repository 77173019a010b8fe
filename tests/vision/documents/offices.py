"""Office files that the tests write by hand: the members that a reader needs, and nothing else."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006"
_MAIN = "application/vnd.openxmlformats-officedocument"
_RELS = "http://schemas.openxmlformats.org/package/2006"


def packed(members: Mapping[str, str | bytes]) -> bytes:
    """A ZIP archive of these members."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def relations(*targets: tuple[str, str]) -> str:
    """The member that says what belongs to what: kinds and targets, numbered from 1."""
    each = "".join(
        f'<Relationship Id="r{at}" Type="{_OFFICE}/relationships/{kind}" Target="{target}"/>'
        for at, (kind, target) in enumerate(targets, 1)
    )
    return f'<?xml version="1.0"?><Relationships xmlns="{_RELS}/relationships">{each}</Relationships>'


def types(**parts: str) -> str:
    """[Content_Types].xml: a content type for each part; `__` in a name stands for a slash."""
    each = "".join(
        f'<Override PartName="/{name.replace("__", "/")}.xml" ContentType="{_MAIN}.{kind}+xml"/>'
        for name, kind in parts.items()
    )
    rels = '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    return f'<?xml version="1.0"?><Types xmlns="{_RELS}/content-types">{rels}{each}</Types>'


def docx(*paragraphs: str, table: tuple[tuple[str, ...], ...] = (), more: Mapping[str, bytes] | None = None) -> bytes:
    """A Word document; the first paragraph is its heading."""
    head, *rest = paragraphs
    words = f'<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>{head}</w:t></w:r></w:p>'
    words += "".join(f"<w:p><w:r><w:t>{each}</w:t></w:r></w:p>" for each in rest)
    cells = "".join(
        "<w:tr>" + "".join(f"<w:tc><w:p><w:r><w:t>{cell}</w:t></w:r></w:p></w:tc>" for cell in row) + "</w:tr>"
        for row in table
    )
    words += f"<w:tbl>{cells}</w:tbl>" if cells else ""
    space = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
    return packed(
        {
            "[Content_Types].xml": types(word__document="wordprocessingml.document.main"),
            "_rels/.rels": relations(("officeDocument", "word/document.xml")),
            "word/document.xml": f'<w:document xmlns:w="{space}"><w:body>{words}</w:body></w:document>',
            **(more or {}),
        }
    )


def xlsx(*rows: tuple[str | float, ...], sheet: str = "Costs") -> bytes:
    """A workbook of one sheet."""
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"

    def cell(at: int, row: int, value: str | float) -> str:
        where = f"{chr(65 + at)}{row}"
        if isinstance(value, str):
            return f'<c r="{where}" t="inlineStr"><is><t>{value}</t></is></c>'
        return f'<c r="{where}"><v>{value}</v></c>'

    data = "".join(
        f'<row r="{row}">' + "".join(cell(at, row, value) for at, value in enumerate(values)) + "</row>"
        for row, values in enumerate(rows, 1)
    )
    return packed(
        {
            "[Content_Types].xml": types(
                xl__workbook="spreadsheetml.sheet.main", xl__worksheets__sheet1="spreadsheetml.worksheet"
            ),
            "_rels/.rels": relations(("officeDocument", "xl/workbook.xml")),
            "xl/_rels/workbook.xml.rels": relations(("worksheet", "worksheets/sheet1.xml")),
            "xl/workbook.xml": f'<workbook xmlns="{space}" xmlns:r="{_OFFICE}/relationships"><sheets>'
            f'<sheet name="{sheet}" sheetId="1" r:id="r1"/></sheets></workbook>',
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{space}"><sheetData>{data}</sheetData></worksheet>',
        }
    )


def pptx(*slides: str) -> bytes:
    """A presentation with a text on each slide."""
    space = "http://schemas.openxmlformats.org/presentationml/2006/main"
    drawing = "http://schemas.openxmlformats.org/drawingml/2006/main"
    spaces = f'xmlns:p="{space}" xmlns:a="{drawing}" xmlns:r="{_OFFICE}/relationships"'
    members: dict[str, str] = {
        "[Content_Types].xml": types(
            ppt__presentation="presentationml.presentation.main",
            **{f"ppt__slides__slide{at}": "presentationml.slide" for at in range(1, len(slides) + 1)},
        ),
        "_rels/.rels": relations(("officeDocument", "ppt/presentation.xml")),
        "ppt/_rels/presentation.xml.rels": relations(
            *(("slide", f"slides/slide{at}.xml") for at in range(1, len(slides) + 1))
        ),
        "ppt/presentation.xml": f"<p:presentation {spaces}><p:sldIdLst>"
        + "".join(f'<p:sldId id="{255 + at}" r:id="r{at}"/>' for at in range(1, len(slides) + 1))
        + "</p:sldIdLst></p:presentation>",
    }
    for at, words in enumerate(slides, 1):
        members[f"ppt/slides/slide{at}.xml"] = (
            f"<p:sld {spaces}><p:cSld><p:spTree><p:sp><p:nvSpPr><p:cNvPr id='2' name='t'/><p:cNvSpPr/><p:nvPr/>"
            f"</p:nvSpPr><p:spPr/><p:txBody><a:bodyPr/><a:p><a:r><a:t>{words}</a:t></a:r></a:p></p:txBody></p:sp>"
            "</p:spTree></p:cSld></p:sld>"
        )
    return packed(members)
