"""A question about a document: python examples/pdf.py [FILE [QUESTION]]. Word, Excel, videos and texts do as well."""

from __future__ import annotations

import sys
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


with tempfile.TemporaryDirectory() as folder, Periscope() as periscope:
    file = sys.argv[1] if len(sys.argv) > 1 else scan(Path(folder))
    question = sys.argv[2] if len(sys.argv) > 2 else "What colour is the circle?"
    answer = periscope.chat([Message(Role.USER, (attachment(file), TextPart(question)))])
    print(answer.text)
    if answer.vision is not None:  # pages with text alone are read without it
        print(f"({answer.vision.num_images} pages or pictures were described)")
