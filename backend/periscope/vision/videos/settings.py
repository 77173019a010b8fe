"""How videos are sampled, and how large they may be. Plain data, as models.yaml says it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class VideoSettings:
    """How the videos of one text model's requests are sampled. Error messages name limits as models.yaml does.

    Attributes:
        max_bytes: size of one file (`video.max_bytes`).
        max_seconds: length of one video (`video.max_seconds`).
        max_frames: frames that are described of one video (`video.max_frames`).
        max_source_pixels: of one frame, read from the file's header (`video.max_source_pixels`).
        max_frame_px: longest side of a frame's image (`video.max_frame_px`).
        timeout_s: longest time for reading one video (`video.timeout_s`).
    """

    max_bytes: int = 64 * 1024 * 1024
    max_seconds: float = 600.0
    max_frames: int = 8
    max_source_pixels: int = 9_000_000
    max_frame_px: int = 1024
    timeout_s: float = 30.0
