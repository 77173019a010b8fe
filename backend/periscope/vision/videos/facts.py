"""What is known of a sampled video, and how its file is recognised. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final

#: Whether the extra `video` is installed.
HAS_VIDEO: Final = find_spec("av") is not None
#: The FFmpeg demuxers that are used, and how their files begin. No other demuxer is ever tried: some of them open
#: further files and addresses that a file names.
_CONTAINERS: Final = (
    ("mp4", re.compile(rb".{4}(?:ftyp(?!avi[fs]|he[iv]|mi[fa]1|msf1)|moov|wide|mdat)", re.DOTALL)),
    ("matroska", re.compile(rb"\x1aE\xdf\xa3")),
    ("avi", re.compile(rb"RIFF.{4}AVI ", re.DOTALL)),
)


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """A video, and the frames that were chosen of it.

    Attributes:
        width, height: of the video as it is shown, in pixels, upright.
        frame_width, frame_height: of the images of its frames.
        seconds: its length.
        times: of the chosen frames, in seconds from the first frame, rising.
    """

    width: int
    height: int
    frame_width: int
    frame_height: int
    seconds: float
    times: tuple[float, ...]


def container_of(data: bytes) -> str | None:
    """FFmpeg's name for the container; None if it is no video that is taken. AVIF and HEIC have the boxes of MP4."""
    return next((name for name, magic in _CONTAINERS if magic.match(data)), None)
