"""A video of a request, and its frames as images. May be used from any thread; its calls block."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from typing import Final

from periscope.core import Image
from periscope.vision.drawn import DrawnImage
from periscope.vision.images.decode import ImageHeader, scaled
from periscope.vision.prompts import Label
from periscope.vision.videos.facts import VideoFacts
from periscope.vision.videos.process import VideoProcess
from periscope.vision.videos.settings import VideoSettings

#: Part of what identifies a frame: raise it when frames are chosen or scaled in another way.
_SAMPLING_VERSION: Final = 1


class Video:
    """Owns the pixels of the chosen frames, which are sampled once: at the latest when one of them is needed.

    Args:
        facts: what an earlier request found out, so that a video whose captions are known is not decoded again.
    """

    def __init__(
        self,
        data: bytes,
        sha256: str,
        settings: VideoSettings,
        process: VideoProcess,
        *,
        param: str,
        facts: VideoFacts | None = None,
    ) -> None:
        self._data = data
        self._sha256 = sha256
        self._settings = settings
        self._process = process
        self._param = param
        self._facts = facts
        self._pixels: bytes | None = None
        self._turn = threading.Lock()

    def facts(self) -> VideoFacts:
        """What the video is; it is sampled unless that is known.

        Raises:
            VideoInvalid: it cannot be read.
            ServerBusy: other videos were being read all the time.
        """
        if self._facts is None:
            self._sampled()
        assert self._facts is not None  # noqa: S101 - sampled above
        return self._facts

    def header(self, index: int) -> ImageHeader:
        """The header of one frame: the video's size, and a digest of what the frame's pixels depend on."""
        facts, side = self.facts(), self._settings.max_frame_px
        named = f"video-frame {_SAMPLING_VERSION} {self._sha256} {facts.times[index]} {side}"
        return ImageHeader(facts.width, facts.height, hashlib.sha256(named.encode()).hexdigest())

    def frame(self, index: int) -> Image:
        """The pixels of one chosen frame; blocks.

        Raises:
            VideoInvalid: it cannot be read.
            ServerBusy: other videos were being read all the time.
        """
        facts, pixels, header = self.facts(), self._sampled(), self.header(index)
        num_bytes = 3 * facts.frame_width * facts.frame_height
        return Image(
            pixels[index * num_bytes : (index + 1) * num_bytes],
            facts.frame_width,
            facts.frame_height,
            source_width=facts.width,
            source_height=facts.height,
            sha256=header.sha256,
        )

    def drop_pixels(self) -> None:
        """Keep the file alone: the frames are sampled again if one of them is needed once more. Never waits."""
        self._pixels = None

    def _sampled(self) -> bytes:
        with self._turn:
            pixels = self._pixels
            if pixels is None:
                self._facts, pixels = self._process.sample(self._data, self._settings, param=self._param)
                self._pixels = pixels
            return pixels


@dataclass(frozen=True, slots=True)
class FrameImage(DrawnImage):
    """A frame that is shown as an image.

    Attributes:
        block: what the block of the video is called.
        video: all its frames stand one behind the other, and become that block.
        index: among the chosen frames.
    """

    block: Label
    video: Video
    index: int

    @property
    def header(self) -> ImageHeader:
        return self.video.header(self.index)

    def drawn(self, *, max_side_px: int) -> Image:
        """Blocks: as `DrawnImage` says."""
        return scaled(self.video.frame(self.index), max_side_px)

    def drop_pixels(self) -> None:
        self.video.drop_pixels()
