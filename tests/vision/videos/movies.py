"""Videos that the tests make: plain frames of one colour after the other."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from fractions import Fraction

import PIL.Image

from periscope.core import FilePart

#: Of MP4: the identity, and what a phone that is held upright writes.
_UPRIGHT = b"\0\1\0\0" + bytes(12) + b"\0\1\0\0" + bytes(12) + b"@\0\0\0"
_TURNED = bytes(4) + b"\0\1\0\0" + bytes(4) + b"\xff\xff\0\0" + bytes(16) + b"@\0\0\0"


def movie(
    *frames: str | PIL.Image.Image,
    seconds: float = 3.0,
    size: tuple[int, int] = (64, 48),
    container: str = "mp4",
    codec: str = "h264",
    fps: int = 10,
    aspect: Fraction = Fraction(1, 1),
) -> bytes:
    """Each frame is shown for the same time; a name is a colour."""
    import av

    pictures = [each if isinstance(each, PIL.Image.Image) else PIL.Image.new("RGB", size, each) for each in frames]
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=fps)
        stream.width, stream.height = pictures[0].size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        num_frames = round(seconds * fps) + 1
        for at in range(num_frames):
            frame = av.VideoFrame.from_image(pictures[at * len(pictures) // num_frames])
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def turned(data: bytes) -> bytes:
    """The same MP4, to be shown a quarter of a turn clockwise."""
    assert data.count(_UPRIGHT) == 2  # of the movie, and of its track
    at = data.rindex(_UPRIGHT)
    return data[:at] + _TURNED + data[at + len(_UPRIGHT) :]


def sound() -> bytes:
    """An MP4 with nothing to see."""
    import av
    import numpy as np

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate = 44100
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def video_part(data: bytes, name: str = "a.mp4", param: str = "messages[0].content[0]") -> FilePart:
    return FilePart(param, name, url=video_url(data))


def video_url(data: bytes) -> str:
    """What a client sends."""
    return "data:video/mp4;base64," + base64.b64encode(data).decode()


def colours(rgb: bytes, num_pixels: int) -> Sequence[str]:
    """What stands in the middle of each frame: r, g, b or w."""
    frames = [rgb[at : at + 3 * num_pixels] for at in range(0, len(rgb), 3 * num_pixels)]
    return ["w" if min(px := f[len(f) // 2 // 3 * 3 :][:3]) > 99 else "rgb"[px.index(max(px))] for f in frames]
