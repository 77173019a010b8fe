"""PDF files that the tests write: pages with text by hand, scans by Pillow, and what is wrong with others."""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Sequence

import PIL.Image

from periscope.core import FilePart, Message, Role, TextPart
from tests.vision.readers.pictures import drawn_screenshot

INVOICE = (
    "INVOICE 2024-117",
    "Screws, 40 pieces      12.50",
    "Delivery                4.90",
    "Total          17.40 EUR",
)


def text_pdf(*pages: str, size: tuple[float, float] = (595, 842), extra: str = "") -> bytes:
    """One page for each text, set in Helvetica line by line; "" is a page on which nothing stands.

    Args:
        extra: further operators of every page's content.
    """
    kids = " ".join(f"{4 + 2 * at} 0 R" for at in range(len(pages)))
    objects = [
        "<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    for at, page in enumerate(pages):
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {size[0]} {size[1]}] /Contents {5 + 2 * at} 0 R "
            "/Resources << /Font << /F 3 0 R >> >> >>"
        )
        lines = "".join(f"({_escaped(line)}) Tj T* " for line in page.splitlines())
        content = f"BT /F 12 Tf 14 TL 72 {size[1] - 72} Td {lines}ET " if page else ""
        objects.append(f"<< /Length {len(content + extra)} >>\nstream\n{content}{extra}\nendstream")
    return written(objects)


def form_pdf(value: str) -> bytes:
    """A page with one form field, and what was filled in."""
    return written(
        [
            "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [5 0 R] /DR << /Font << /F 3 0 R >> >> >> >>",
            "<< /Type /Pages /Kids [4 0 R] /Count 1 >>",
            "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Annots [5 0 R] /Contents 6 0 R /Resources 7 0 R >>",
            f"<< /Subtype /Widget /FT /Tx /T (n) /V ({value}) /P 4 0 R /Rect [120 700 400 730] /DA (/F 18 Tf 0 g) >>",
            "<< /Length 41 >>\nstream\nBT /F 18 Tf 72 750 Td (Your name:) Tj ET  \nendstream",
            "<< /Font << /F 3 0 R >> >>",
        ]
    )


def _escaped(line: str) -> str:
    return line.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")


def written(objects: Sequence[str]) -> bytes:
    """A file of these objects, of which the first is its catalogue."""
    file, offsets = bytearray(b"%PDF-1.4\n"), list[int]()
    for number, each in enumerate(objects, 1):
        offsets.append(len(file))
        file += f"{number} 0 obj\n{each}\nendobj\n".encode("latin-1")
    xref = len(file)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode()
    for offset in offsets:
        file += f"{offset:010} 00000 n \n".encode()
    file += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{xref}\n%%EOF\n".encode()
    return bytes(file)


def encrypted_pdf() -> bytes:
    """It asks for a password: the digests of the owner's and the user's fit none that is empty."""
    objects = text_pdf("secret").decode("latin-1")
    crypt = f"/Encrypt << /Filter /Standard /V 1 /R 2 /O <{'41' * 32}> /U <{'42' * 32}> /P -4 >> /ID [<00> <00>]"
    return objects.replace("/Root 1 0 R", f"/Root 1 0 R {crypt}").encode("latin-1")


def scanned_pdf(*pages: Sequence[str]) -> bytes:
    """Pictures of text, one page each, as a scanner saves them."""
    pictures = [drawn_screenshot(lines, colors=("white", "black"), size=36) for lines in pages]
    return picture_pdf(*pictures)


def picture_pdf(*pictures: PIL.Image.Image) -> bytes:
    file = io.BytesIO()
    pictures[0].save(file, "PDF", save_all=True, append_images=pictures[1:], resolution=150)
    return file.getvalue()


def pdf_url(data: bytes) -> str:
    """What a client sends."""
    return "data:application/pdf;base64," + base64.b64encode(data).decode()


def file_part(data: bytes, name: str = "a.pdf", param: str = "messages[0].content[0]") -> FilePart:
    return FilePart(param, name, url=pdf_url(data))


def asked(*parts: FilePart | str, role: Role = Role.USER) -> Message:
    return Message(role, tuple(TextPart(each) if isinstance(each, str) else each for each in parts))


def bomb_pdf(num_paths: int) -> bytes:
    """A few bytes for each thousand paths in the file; hundreds for each in PDFium's memory."""
    raw = zlib.compress(b"0 0 1 1 re f " * num_paths, 9).decode("latin-1")
    return written(
        [
            "<< /Type /Catalog /Pages 2 0 R >>",
            "<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 4 0 R >>",
            f"<< /Filter /FlateDecode /Length {len(raw)} >>\nstream\n{raw}\nendstream",
        ]
    )
