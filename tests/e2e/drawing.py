"""Pictures as a person would draw them with Pillow, and the wire shapes they travel in."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image, ImageDraw, ImageFont


def circle(colour: str = "red", size: int = 240, background: str = "white") -> Image.Image:
    """A filled circle in the middle."""
    image = Image.new("RGB", (size, size), background)
    ImageDraw.Draw(image).ellipse([size // 4, size // 4, size * 3 // 4, size * 3 // 4], fill=colour)
    return image


def square(colour: str = "blue", size: int = 240, background: str = "white") -> Image.Image:
    """A filled square in the middle."""
    image = Image.new("RGB", (size, size), background)
    ImageDraw.Draw(image).rectangle([size // 4, size // 4, size * 3 // 4, size * 3 // 4], fill=colour)
    return image


def number(text: str, colour: str = "black", size: int = 320) -> Image.Image:
    """Digits in Pillow's own font."""
    image = Image.new("RGB", (size, size // 2), "white")
    font = ImageFont.load_default(size // 4)
    ImageDraw.Draw(image).text((size // 2, size // 4), text, fill=colour, font=font, anchor="mm")
    return image


def data_url(image: Image.Image, kind: str = "PNG") -> str:
    """The picture as a data: URL."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture(image: Image.Image, kind: str = "PNG") -> dict[str, Any]:
    """An OpenAI content part."""
    return {"type": "image_url", "image_url": {"url": data_url(image, kind)}}


def text(words: str) -> dict[str, Any]:
    """An OpenAI content part."""
    return {"type": "text", "text": words}


def user(*parts: dict[str, Any] | str) -> dict[str, Any]:
    """A user message."""
    return {"role": "user", "content": [text(part) if isinstance(part, str) else part for part in parts]}
