"""Pictures of the kind that the embedded captioner was trained on, no two alike. Pure."""

from __future__ import annotations

import base64
import io
import random

from PIL import Image, ImageDraw

_COLOURS = ("red", "green", "blue", "yellow", "black", "orange", "purple")
_SIDE_PX = 240


def picture_url(*key: object) -> str:
    """Pure: a coloured shape on white as a `data:` URL. `key` seeds its shape, place, size and colour."""
    drawn = random.Random(repr(key))
    image = Image.new("RGB", (_SIDE_PX, _SIDE_PX), "white")
    left, top, side = drawn.randint(10, 80), drawn.randint(10, 80), drawn.randint(80, 150)
    pen = ImageDraw.Draw(image)
    draw = drawn.choice((pen.ellipse, pen.rectangle))
    draw((left, top, left + side, top + side), fill=drawn.choice(_COLOURS))
    file = io.BytesIO()
    image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
