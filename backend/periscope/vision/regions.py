"""A part of a picture, as a picture of its own. Pure; decoding blocks."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from periscope.core import Image
from periscope.vision.images.decode import ImageHeader, crop
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import Picture
from periscope.vision.prompts import part_label


@dataclass(frozen=True, slots=True)
class Region:
    """A part of a picture, in whole percent of its width and height: `0 <= left < right <= 100`, so `top`, `bottom`."""

    left: int
    top: int
    right: int
    bottom: int

    def box(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom in pixels of a picture of this size; never empty."""
        left, top = min(width - 1, self.left * width // 100), min(height - 1, self.top * height // 100)
        return left, top, max(left + 1, self.right * width // 100), max(top + 1, self.bottom * height // 100)


@dataclass(frozen=True, slots=True)
class PictureRegion(Picture):
    """A part of a picture. Its digest is of the picture and the part, so that what is said about it can be cached."""

    whole: Picture
    region: Region

    def decoded(self, data: bytes, limits: ImageLimits) -> Image:
        """Decode the whole picture, scaled down less than usual, so that its part may be `max_side_px` long."""
        whole = self.whole.decoded(data, self._limits_of_whole(limits))
        return crop(whole, self.region.box(whole.width, whole.height), sha256=self.header.sha256)

    def decoded_bytes(self, limits: ImageLimits) -> int:
        """Memory that the pixels of the whole picture will take, from which the part is cut."""
        return self.whole.decoded_bytes(self._limits_of_whole(limits))

    def _limits_of_whole(self, limits: ImageLimits) -> ImageLimits:
        factor = max(self.whole.size) / max(self.size)
        return replace(limits, max_side_px=max(limits.max_side_px, int((limits.max_side_px - 1) * factor)))


def picture_region(whole: Picture, region: Region) -> PictureRegion:
    """The part of a picture that a region means."""
    left, top, right, bottom = region.box(*whole.size)
    facts = f"{whole.header.sha256} {region.left} {region.top} {region.right} {region.bottom}"
    header = ImageHeader(right - left, bottom - top, hashlib.sha256(facts.encode()).hexdigest())
    label = part_label(whole.place.label, (region.left, region.right), (region.top, region.bottom))
    return PictureRegion(replace(whole.place, label=label), header, whole.read, whole, region)
