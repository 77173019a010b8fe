"""A text model reads a screenshot of an error and says how to fix it: python examples/fix_screenshot.py [FILE]."""

from __future__ import annotations

import argparse

from PIL import Image, ImageDraw, ImageFont

from periscope import picture
from periscope.sync import Periscope

TRACEBACK = """Traceback (most recent call last):
  File "shop.py", line 7, in <module>
    print(total / count)
ZeroDivisionError: division by zero"""


def screenshot() -> Image.Image:
    drawn = Image.new("RGB", (900, 260), "white")
    ImageDraw.Draw(drawn).multiline_text((20, 20), TRACEBACK, "black", ImageFont.load_default(28), spacing=12)
    return drawn


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("file", nargs="?", help="a picture; without it, one is drawn")
shown = picture(arguments.parse_args().file or screenshot())
with Periscope() as periscope:
    (described,) = periscope.caption(shown)  # its `verbatim` text needs mlx-periscope[ocr]
    print("What the model reads:", described.verbatim or described.text or described.error, sep="\n")
    print("\nWhat it says:", periscope.chat("How do I fix this error?", images=[shown]).text, sep="\n")
