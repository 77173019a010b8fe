"""Samples the frames of a video. The only module that uses PyAV, of the extra `video`.

It runs in the videos' process (`program.py`): a hostile file can crash FFmpeg, or make it work or allocate without end.
"""

from __future__ import annotations

import io
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from periscope.errors import VideoInvalid
from periscope.vision.videos.facts import VideoFacts, container_of
from periscope.vision.videos.settings import VideoSettings

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer
    from av.video.stream import VideoStream

#: Decoders that cameras, phones, browsers and screen recorders need; FFmpeg has hundreds that nobody tests.
_CODECS: Final = ("h264", "hevc", "vp8", "vp9", "libvpx-vp9", "libdav1d", "av1", "mpeg4", "mjpeg", "prores")
#: Frames that are looked at for each one that is kept, so that a short change in a still video is found.
_CANDIDATES: Final = 4
_MAX_CANDIDATES: Final = 64
_MIN_INTERVAL_S: Final = 1.0
#: Pixels of cameras are at most twice as wide as high; a header that says more than this is wrong.
_MAX_ASPECT: Final = 4
#: Frames are compared as gray images of this side ...
_SIGNATURE_PX: Final = 32
#: ... and are nearly equal if no pixel of these differs by more, of 255: noise stays below, a line of text does not.
_MAX_DIFFERENCE: Final = 8


@dataclass(frozen=True, slots=True)
class _Sampled:
    """A frame: its presentation time in units of the time base, its size upright, and its scaled pixels."""

    pts: int
    size: tuple[int, int]
    image_size: tuple[int, int]
    rgb: bytes


def sample(data: bytes, settings: VideoSettings, *, param: str) -> tuple[VideoFacts, bytes]:
    """Blocks: what the video is, and the pixels of its chosen frames, one behind the other.

    Frames are taken evenly by time. Of neighbours that look nearly equal the first is kept; if more than
    `settings.max_frames` remain, they are thinned out evenly.

    Raises:
        VideoInvalid: broken, no video, of an unknown codec, over a limit, or it takes too long.
    """
    import av

    # Nothing but these bytes is ever opened, and nothing but these decoders is used to find out what is in them.
    options = {"codec_whitelist": ",".join(_CODECS), "protocol_whitelist": "", "enable_drefs": "0"}
    try:
        with av.open(io.BytesIO(data), "r", format=container_of(data), container_options=options) as container:
            return _Reading(container, settings, param).sampled()
    except VideoInvalid:
        raise
    except Exception as error:
        raise _unreadable(param) from error


class _Reading:
    """Owns the decoding of one video, and its deadline."""

    def __init__(self, container: InputContainer, settings: VideoSettings, param: str) -> None:
        self._container = container
        self._settings = settings
        self._param = param
        self._deadline = time.monotonic() + settings.timeout_s
        self._stream = self._checked_stream()
        self._time_base = self._stream.time_base or Fraction(1, 1)

    def sampled(self) -> tuple[VideoFacts, bytes]:
        """The facts of the video and its chosen frames, as `sample` returns them."""
        first, last, keyframes = self._span()
        seconds = float((last - first) * self._time_base)
        if seconds > self._settings.max_seconds:
            raise VideoInvalid(
                f"The video in `{self._param}` is {seconds:,.0f} s long; at most {self._settings.max_seconds:g} s are "
                "taken (`video.max_seconds`). Send the part that matters.",
                reason="it is too long",
                param=self._param,
            )
        max_candidates = min(_CANDIDATES * self._settings.max_frames, _MAX_CANDIDATES)
        num_targets = min(max_candidates, 1 + int(seconds / _MIN_INTERVAL_S))
        targets = [first + at * (last - first) // max(1, num_targets - 1) for at in range(num_targets)]
        frames = _thinned(self._distinct(self._frames_at(targets, keyframes)), self._settings.max_frames)
        if not frames:
            raise _unreadable(self._param)
        times = tuple(round(float((frame.pts - first) * self._time_base), 3) for frame in frames)
        facts = VideoFacts(*frames[0].size, *frames[0].image_size, seconds, times)
        return facts, b"".join(frame.rgb for frame in frames)

    def _checked_stream(self) -> VideoStream:
        """The track that is sampled.

        Raises:
            VideoInvalid: there is none, it is of an unknown codec, or its frames are too large.
        """
        stream = next(iter(self._container.streams.video), None)
        codec = "none" if stream is None else stream.codec_context.name
        if stream is None or codec not in _CODECS:
            raise VideoInvalid(
                f"The video in `{self._param}` has no video track that can be decoded (its codec: {codec}). Send it as "
                "MP4 with H.264.",
                reason="it has no video track that can be decoded",
                param=self._param,
            )
        self._check_size(stream.width, stream.height)
        stream.thread_type = "AUTO"
        return stream

    def _span(self) -> tuple[int, int, list[int]]:
        """The times of the first and the last frame, and of all keyframes, by the packets themselves.

        Headers are often wrong, and what browsers record has no length at all.
        """
        times: list[tuple[int, bool]] = []
        for packet in self._container.demux(self._stream):
            self._check_time()
            if packet.pts is not None and packet.size:
                times.append((packet.pts, packet.is_keyframe))
        keyframes = sorted(pts for pts, is_keyframe in times if is_keyframe)
        if not keyframes:
            raise _unreadable(self._param)
        return min(times)[0], max(times)[0], keyframes

    def _frames_at(self, targets: Sequence[int], keyframes: Sequence[int]) -> Iterator[VideoFrame]:
        """The first frame at or behind each target, each frame once. Decoding skips to keyframes that lie ahead."""
        decoding: Iterator[VideoFrame] = iter(())
        at: int | None = None
        for target in targets:
            if at is not None and at >= target:
                continue
            keyframe = keyframes[max(0, bisect_right(keyframes, target) - 1)]
            if at is None or keyframe > at:
                self._container.seek(keyframe, stream=self._stream)
                decoding = self._container.decode(self._stream)
            for frame in decoding:
                self._check_time()
                self._check_size(frame.width, frame.height)
                at = frame.pts if frame.pts is not None else at
                if at is not None and at >= target:
                    yield frame
                    break

    def _distinct(self, frames: Iterator[VideoFrame]) -> list[_Sampled]:
        """The frames that do not look like the one before."""
        import numpy as np

        kept: list[_Sampled] = []
        before = None
        for frame in frames:
            small = frame.reformat(_SIGNATURE_PX, _SIGNATURE_PX, format="gray", interpolation="AREA")
            signature = small.to_ndarray().astype(np.int16)
            if before is None or np.abs(signature - before).max() > _MAX_DIFFERENCE:
                before = signature
                kept.append(self._scaled(frame))
        return kept

    def _scaled(self, frame: VideoFrame) -> _Sampled:
        """The frame as people see it: with square pixels, and upright."""
        import numpy as np

        aspect = self._stream.sample_aspect_ratio or Fraction(1, 1)
        aspect = aspect if 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT else Fraction(1, 1)
        width, height = max(1, round(frame.width * aspect)), frame.height
        scale = min(1.0, self._settings.max_frame_px / max(width, height))
        small = max(1, round(width * scale)), max(1, round(height * scale))
        rgb = frame.reformat(*small, format="rgb24", interpolation="BICUBIC").to_ndarray()
        num_turns = round(frame.rotation / 90) % 4
        size = (height, width) if num_turns % 2 else (width, height)
        image_size = (small[1], small[0]) if num_turns % 2 else small
        return _Sampled(frame.pts or 0, size, image_size, np.rot90(rgb, num_turns).tobytes())

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._settings.max_source_pixels:
            raise VideoInvalid(
                f"The video in `{self._param}` has frames of {width} x {height} = {width * height:,} pixels; at most "
                f"{self._settings.max_source_pixels:,} are taken (`video.max_source_pixels`). Send it scaled down.",
                reason="its frames are too large",
                param=self._param,
            )

    def _check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise VideoInvalid(
                f"The video in `{self._param}` takes more than {self._settings.timeout_s:g} s to read "
                "(`video.timeout_s`). Send the part that matters, or send it scaled down.",
                reason="reading it takes too long",
                param=self._param,
            )


def _thinned(frames: Sequence[_Sampled], max_frames: int) -> list[_Sampled]:
    """At most so many of them, evenly, the first and the last among them. All have the size of the first."""
    frames = [frame for frame in frames if frame.image_size == frames[0].image_size]
    if len(frames) <= max_frames:
        return frames
    return [frames[at * (len(frames) - 1) // max(1, max_frames - 1)] for at in range(max_frames)]


def _unreadable(param: str) -> VideoInvalid:
    return VideoInvalid(
        f"The video in `{param}` could not be read: it is broken or cut off. Export it again, as MP4 with H.264.",
        reason="it is broken or cut off",
        param=param,
    )
