"""A text model answers about a picture: python examples/picture.py [FILE]."""

from __future__ import annotations

import sys

from PIL import Image, ImageDraw

from periscope import picture
from periscope.sync import Periscope


def circle() -> Image.Image:
    drawn = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(drawn).ellipse([60, 60, 180, 180], fill="red")
    return drawn


shown = picture(sys.argv[1] if len(sys.argv) > 1 else circle())
with Periscope() as periscope:
    print(periscope.chat("What colour is the circle?", images=[shown]).text)
    print(periscope.caption(shown)[0].text)  # what the text model read; it was not described again
