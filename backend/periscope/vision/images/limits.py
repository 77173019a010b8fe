"""Limits on the images of a request. Error messages name them as models.yaml does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits that one text model sets on the images of its requests.

    Attributes:
        max_bytes: size of one image file, base64 decoded (`max_image_bytes` in models.yaml).
        max_source_pixels: width times height by the file's header, checked before anything is decoded.
        max_side_px: the longest side that the captioner sees; larger images are scaled down.
        max_images: captions made for one request, newest first; other new images get a marker. Images whose captions
            are in the cache do not count.
    """

    max_bytes: int = 20 * 1024 * 1024
    max_source_pixels: int = 50_000_000
    max_side_px: int = 1024
    max_images: int = 8
