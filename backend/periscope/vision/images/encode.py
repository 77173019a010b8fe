"""Encodes a decoded picture for another server. Pure; it blocks, so it runs in an executor thread.

PNG, because captioners are asked for the text in the image first, and JPEG blurs small letters.
"""

from __future__ import annotations

import base64
import io
from typing import Final

import PIL.Image

from periscope.core import Image

#: zlib's fastest level: on a local network a smaller file saves less time than it takes to make.
_COMPRESS_LEVEL: Final = 1


def png_data_url(image: Image) -> str:
    """Pure: the pixels as they are, as a `data:` URL."""
    file = io.BytesIO()
    PIL.Image.frombytes("RGB", (image.width, image.height), image.rgb).save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
