"""The process in which documents are opened: pages of PDFs are read and drawn, the rest is turned into Markdown."""

from __future__ import annotations

from typing import Any

from periscope.vision.documents.office import html_markdown, office_markdown
from periscope.vision.documents.pdf import draw, read_pages
from periscope.vision.file_program import Answer, answer_requests


def _answer(request: Any) -> Answer:
    match request:
        case ("read", data, settings, param):
            pages = read_pages(data, settings, param=param)
            return {"pages": [[p.text, p.width, p.height, p.has_figures, p.is_blank] for p in pages]}, b""
        case ("draw", page, max_side_px):
            return {}, draw(page, max_side_px)
        case ("office", data, param):
            text, note = office_markdown(data, param=param)
            return {"text": text, "note": note}, b""
        case ("html", text, param):
            return {"text": html_markdown(text, param=param)}, b""
        case _:
            raise ValueError("no such request")


if __name__ == "__main__":
    answer_requests(_answer)
