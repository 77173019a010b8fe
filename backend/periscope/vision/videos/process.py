"""VideoProcess has videos decoded in a process of its own. Its calls block, so they run in executor threads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from periscope.errors import VideoInvalid
from periscope.vision.file_process import GRACE_S, FileProcess, FileProcessFailed
from periscope.vision.videos.facts import VideoFacts
from periscope.vision.videos.settings import VideoSettings

_PROGRAM: Final = Path(__file__).with_name("program.py")


class VideoProcess:
    """Owns the process for videos, which knows FFmpeg."""

    def __init__(self, *, grace_s: float = GRACE_S) -> None:
        self._process = FileProcess(_PROGRAM, grace_s=grace_s)

    def sample(self, data: bytes, settings: VideoSettings, *, param: str) -> tuple[VideoFacts, bytes]:
        """What the video is, and the pixels of its chosen frames, one behind the other.

        Raises:
            VideoInvalid: broken, no video, over a limit, or it takes too much time or memory.
            ServerBusy: other videos were being read all the time.
        """
        try:
            head, pixels = self._process.ask((data, settings, param), max_seconds=settings.timeout_s)
        except FileProcessFailed as error:
            raise _gave_up(param) from error
        if "error" in head:
            raise VideoInvalid(str(head["error"]), reason=str(head.get("reason")), param=param)
        try:
            facts = VideoFacts(**{**head, "times": tuple(map(float, head["times"]))})
        except (KeyError, TypeError, ValueError) as error:
            raise _gave_up(param) from error
        if len(pixels) != 3 * facts.frame_width * facts.frame_height * len(facts.times):
            raise _gave_up(param)
        return facts, pixels


def _gave_up(param: str) -> VideoInvalid:
    return VideoInvalid(
        f"The video in `{param}` could not be read: it takes too much time or memory, or is broken. Send the part that "
        "matters, as MP4 with H.264.",
        reason="it takes too much time or memory to read, or is broken",
        param=param,
    )
