"""A question about a document: python examples/pdf.py [FILE [QUESTION]]. Word, Excel, videos and texts do as well."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

from periscope import Message, Role, TextPart, attachment
from periscope.sync import Periscope


def scan(folder: Path) -> Path:
    page = Image.new("RGB", (595, 842), "white")
    ImageDraw.Draw(page).ellipse([180, 200, 420, 440], fill="blue")
    page.save(folder / "scan.pdf")
    return folder / "scan.pdf"


arguments = argparse.ArgumentParser(description=__doc__)
arguments.add_argument("file", nargs="?", help="a document; without it, a scan is made")
arguments.add_argument("question", nargs="?", default="What colour is the circle?")
given = arguments.parse_args()

with tempfile.TemporaryDirectory() as folder, Periscope() as periscope:
    document = attachment(given.file or scan(Path(folder)))
    answer = periscope.chat([Message(Role.USER, (document, TextPart(given.question)))])
    print(answer.text)
    if answer.vision is not None:  # pages with text alone are read without it
        print(f"(pages and pictures described: {answer.vision.num_images})")
