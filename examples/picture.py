"""A text model answers about a picture: python examples/picture.py [FILE]."""

from __future__ import annotations

import argparse

from PIL import Image, ImageDraw

from periscope import picture
from periscope.sync import Periscope


def circle() -> Image.Image:
    drawn = Image.new("RGB", (240, 240), "white")
    ImageDraw.Draw(drawn).ellipse([60, 60, 180, 180], fill="red")
    return drawn


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("file", nargs="?", help="a picture; without it, one is drawn")
shown = picture(arguments.parse_args().file or circle())
with Periscope() as periscope:
    print(periscope.chat("What colour is the circle?", images=[shown]).text)
    print(periscope.caption(shown)[0].text)  # what the text model read; it was not described again
