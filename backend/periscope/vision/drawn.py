"""Images that are drawn from an attached file instead of being sent: pages of documents and frames of videos."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

from periscope.core import Image, ImagePart
from periscope.vision.images.decode import ImageHeader
from periscope.vision.prompts import Label


@dataclass(frozen=True, slots=True)
class DrawnImage(ImagePart):
    """An image in a file. It has no address of its own, and its pixels are made only when somebody needs them.

    Attributes:
        label: what its block is called.
    """

    label: Label

    @property
    @abstractmethod
    def header(self) -> ImageHeader:
        """The picture's size, and a digest of everything that its pixels depend on; the same in every process."""

    @abstractmethod
    def drawn(self, *, max_side_px: int) -> Image:
        """Blocks: its pixels, scaled down to `max_side_px`.

        Raises:
            FileInvalid: it cannot be drawn, or takes too much time or memory.
            ServerBusy: other files were being read all the time.
        """

    def drop_pixels(self) -> None:
        """Keep no pixels that can be drawn again. Never waits."""
