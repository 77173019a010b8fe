"""How much image a request may bring. The names in `code quotes` of error messages are those of models.yaml."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Bounds of image intake.

    Attributes:
        max_bytes: of one image as the client sent it, after base64 (`max_image_bytes`).
        max_source_pixels: width times height as the header says, checked before anything is decoded.
        max_side_px: longest side of what the captioner sees; larger pictures are scaled down.
        max_images: captions that are made for one request, newest first; the rest get a marker. Images whose captions
            are known do not count.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_source_pixels: int = 50_000_000
    max_side_px: int = 1024
    max_images: int = 8
