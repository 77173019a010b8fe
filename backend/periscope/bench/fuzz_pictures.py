"""The picture that all good picture files of `bench fuzz` show. Pure."""

from __future__ import annotations

from PIL import Image, ImageDraw

_SIZE_PX = (48, 32)


def drawn(mode: str = "RGB") -> Image.Image:
    """A small picture with a gradient, a shape and text."""
    picture = Image.linear_gradient("L").resize(_SIZE_PX).convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((4, 4, 26, 26), fill="red")
    pen.text((20, 10), "42", fill="blue")
    return picture.convert(mode)
