"""The files that `bench fuzz` breaks: one small, good file of each format that clients may send. Pure.

A further format is one more entry of `_ALL`.
"""

from __future__ import annotations

import base64
import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from PIL import Image, PngImagePlugin

from periscope.bench.fuzz_extras import docx, docx_of, docx_xml, heic, html, video, xlsx
from periscope.bench.fuzz_pictures import drawn

if TYPE_CHECKING:
    from periscope.core import JSONObject

_PNG_SIGNATURE_BYTES = 8
#: Rotated by 90 degrees, as a phone that is held upright writes it.
_EXIF_ORIENTATION, _ROTATED = 0x0112, 6


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A good file.

    Attributes:
        part: the content part of a message that holds a file's bytes; the bytes may be broken.
        repaired: makes the checksums of a broken file right, so that its other faults are met.
        needs: the library that reads it.
    """

    name: str
    data: Callable[[], bytes]
    part: Callable[[bytes], JSONObject]
    repaired: Callable[[bytes], bytes] = bytes
    needs: str = "PIL"


def image_part(data: bytes) -> JSONObject:
    """Pure: bytes in the place of an image."""
    return {"type": "image_url", "image_url": {"url": _data_url("image/png", data)}}


def file_part(data: bytes) -> JSONObject:
    """Pure: bytes in the place of a file."""
    return {"type": "file", "file": {"filename": "file", "file_data": _data_url("application/octet-stream", data)}}


def _data_url(media_type: str, data: bytes) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


@cache
def _picture(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    drawn(mode).save(file, kind, **options)
    return file.getvalue()


@cache
def _rotated_jpeg() -> bytes:
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _ROTATED
    return _picture("JPEG", exif=exif.tobytes())


@cache
def _png_with_chunks() -> bytes:
    """A palette with transparency, text and a time behind it: every chunk is one more length to be wrong about."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "fuzz", zip=True)
    info.add_itxt("Comment", "fuzz", lang="en")
    file = io.BytesIO()
    drawn("P").save(file, "PNG", pnginfo=info, transparency=0, dpi=(72, 72))
    return file.getvalue()


@cache
def _animation() -> bytes:
    file = io.BytesIO()
    drawn("P").save(file, "GIF", save_all=True, append_images=[drawn("P").rotate(90)], duration=100, loop=0)
    return file.getvalue()


@cache
def _pdf_with_text() -> bytes:
    """Two pages of text in a standard font, and a form field."""
    content = "BT /F 12 Tf 14 TL 20 100 Td (Total 17.40 EUR) Tj T* (Thank you) Tj ET 0 0 40 40 re f"
    page = "/Type /Page /Parent 2 0 R /Contents 6 0 R /Resources << /Font << /F 5 0 R >> >>"
    objects = (
        "<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [7 0 R] >> >>",
        "<< /Type /Pages /Kids [3 0 R 4 0 R] /Count 2 >>",
        f"<< {page} /MediaBox [0 0 200 120] /Annots [7 0 R] >>",
        f"<< {page} /MediaBox [0 0 120 200] /Rotate 90 >>",
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
        f"<< /Length {len(content)} >>\nstream\n{content}\nendstream",
        "<< /Type /Annot /Subtype /Widget /FT /Tx /T (name) /V (Ada) /Rect [10 10 90 30] /P 3 0 R >>",
    )
    file, offsets = bytearray(b"%PDF-1.7\n"), list[int]()
    for number, each in enumerate(objects, 1):
        offsets.append(len(file))
        file += f"{number} 0 obj\n{each}\nendobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    file += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}".encode()
    start = file.index(b"xref\n0 ")
    file += f"trailer\n<< /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n".encode()
    return bytes(file)


def with_png_checksums(data: bytes) -> bytes:
    """Pure: the file with a right checksum behind each chunk that its lengths lead to."""
    file, at = bytearray(data), _PNG_SIGNATURE_BYTES
    while at + 12 <= len(file):
        end = at + 8 + int.from_bytes(file[at : at + 4], "big")
        if end + 4 > len(file):
            break
        file[end : end + 4] = zlib.crc32(file[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(file)


def _docx_part(document: bytes) -> JSONObject:
    return file_part(docx_of(document))


_ALL = (
    SeedFile("JPEG", _rotated_jpeg, image_part),
    SeedFile("JPEG progressive", partial(_picture, "JPEG", progressive=True, quality=60), image_part),
    SeedFile("JPEG CMYK", partial(_picture, "JPEG", "CMYK"), image_part),
    SeedFile("PNG", partial(_picture, "PNG"), image_part, with_png_checksums),
    SeedFile("PNG palette", _png_with_chunks, image_part, with_png_checksums),
    SeedFile("PNG 16 bits", partial(_picture, "PNG", "I;16"), image_part, with_png_checksums),
    SeedFile("WebP", partial(_picture, "WEBP", quality=50), image_part),
    SeedFile("WebP lossless", partial(_picture, "WEBP", "RGBA", lossless=True), image_part),
    SeedFile("GIF", _animation, image_part),
    SeedFile("BMP", partial(_picture, "BMP", "P"), image_part),
    SeedFile("TIFF", partial(_picture, "TIFF", compression="tiff_lzw"), image_part),
    SeedFile("TIFF float", partial(_picture, "TIFF", "F"), image_part),
    SeedFile("AVIF", partial(_picture, "AVIF"), image_part),
    SeedFile("picture as file", partial(_picture, "PNG"), file_part),
    SeedFile("PDF text", _pdf_with_text, file_part),
    SeedFile("PDF scan", partial(_picture, "PDF"), file_part),
    SeedFile("HEIC", heic, image_part, needs="pillow_heif"),
    SeedFile("HTML", html, file_part, needs="markdownify"),
    SeedFile("DOCX", docx, file_part, needs="undoc"),
    SeedFile("DOCX, its XML", docx_xml, _docx_part, needs="undoc"),
    SeedFile("XLSX", xlsx, file_part, needs="undoc"),
    SeedFile("video", video, file_part, needs="av"),
)
#: Those that can be read here. A server elsewhere may read fewer, and refuses the others.
SEED_FILES = tuple(seed for seed in _ALL if find_spec(seed.needs) is not None)
