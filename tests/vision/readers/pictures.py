"""Pictures with text in them, drawn with the font that Pillow brings."""

from __future__ import annotations

from collections.abc import Sequence

import PIL.Image
from PIL import ImageDraw, ImageFont

from tests.vision.fakes import encoded

TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "/home/me/app.py", line 12, in main',
    "    total = count / divisor",
    "ZeroDivisionError: division by zero",
)


def drawn_screenshot(
    lines: Sequence[str] = TRACEBACK, *, colors: tuple[str, str] = ("black", "white"), size: int = 20
) -> PIL.Image.Image:
    """These lines, in the colors of the background and of the text."""
    font = ImageFont.load_default(size)
    width = round(max(font.getlength(line) for line in lines)) + 60
    picture = PIL.Image.new("RGB", (width, (len(lines) + 1) * size * 3 // 2 + 30), colors[0])
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((20, 20 + number * size * 3 // 2), line, fill=colors[1], font=font)
    return picture


def screenshot(picture: PIL.Image.Image, *, is_turned: bool = False) -> bytes:
    """The picture as a PNG; turned, as a JPEG that lies on its side and whose EXIF orientation says so."""
    if not is_turned:
        return encoded(picture)
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(PIL.Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)
