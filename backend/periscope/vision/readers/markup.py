"""From what OCR models write to lines of text: fences, tables and positions become plain lines. Pure.

Each function takes out one kind of markup and leaves all other text as it is. Which of them a model needs is said in
`model_families.py`: a picture of source code may show the same markup as text.
"""

from __future__ import annotations

import html
import json
import re
from typing import Any, Final

#: Cells of a table row stand this far apart.
_CELL_GAP: Final = "  "

_FENCED: Final = re.compile(r"\s*(`{3,}|~{3,})[\w+-]*[ \t]*\n(?P<inner>.*?)\n?[ \t]*\1\s*", re.DOTALL)
_OPEN_FENCE: Final = re.compile(r"\s*(?:`{3,}|~{3,})[\w+-]*[ \t]*\n")
_TABLE: Final = re.compile(r"<table\b[^>]*>.*?(?:</table>|\Z)", re.DOTALL | re.IGNORECASE)
_ROW_END: Final = re.compile(r"\s*</tr\s*>\s*", re.IGNORECASE)
_CELL_END: Final = re.compile(r"\s*</t[dh]\s*>\s*(?=<t[dh]\b)", re.IGNORECASE)
_LINE_END: Final = re.compile(r"<br\s*/?>", re.IGNORECASE)
_TAG: Final = re.compile(r"</?[a-z][^<>]*>", re.IGNORECASE)
#: A region and what it holds, as DeepSeek-OCR writes them: the text itself, or the kind of the region.
_GROUNDED: Final = re.compile(r"<\|ref\|>(?P<ref>.*?)<\|/ref\|>(?:<\|det\|>.*?<\|/det\|>)?[ \t]*\n?", re.DOTALL)
_REGION_KINDS: Final = re.compile(
    r"\s*(?:(?:sub_)?title|text|(?:table|image|figure)(?:_caption|_footnote)?|equation|formula|header|footer|page_number"
    r"|list|code|reference|abstract)\s*"
)
#: A table as PaddleOCR-VL writes it: a token before each cell, and one at the end of each row.
_OTSL_CELL: Final = re.compile(r"<(?:f|e|l|u|x)cel>")
_OTSL_ROW_END: Final = re.compile(r"<nl>\n?")
_LOCATION: Final = re.compile(r"<\|?LOC_\d+\|?>", re.IGNORECASE)
#: A word's corners behind it, as HunyuanOCR writes them: `(12,34),(56,78)`.
_CORNERS: Final = re.compile(r"\(\d{1,4},\d{1,4}\),\(\d{1,4},\d{1,4}\)[ \t]*\n?")


def without_fence(text: str) -> str:
    """The inside of a fence around the whole text; of one that is never closed, too, if the text was cut off in it."""
    if (found := _FENCED.fullmatch(text)) is not None:
        return found["inner"]
    return _OPEN_FENCE.sub("", text, count=1) if _OPEN_FENCE.match(text) and text.count("```") == 1 else text


def without_html_tables(text: str) -> str:
    """Each table as one line for each row, without its tags and entities."""
    return _TABLE.sub(lambda table: _rows(table[0]), text)


def _rows(table: str) -> str:
    lines = _LINE_END.sub(" ", _CELL_END.sub(_CELL_GAP, _ROW_END.sub("\n", table)))
    return html.unescape(_TAG.sub("", lines)).strip("\n")


def without_grounding(text: str) -> str:
    """Regions without their boxes: the text that a region names, nothing for its kind."""
    return _GROUNDED.sub(lambda found: "" if _REGION_KINDS.fullmatch(found["ref"]) else f"{found['ref']}\n", text)


def without_otsl(text: str) -> str:
    """Each table row as a line, and no positions."""
    if "cel>" in text:
        rows = _OTSL_ROW_END.sub("\n", text).split("\n")
        text = "\n".join(_OTSL_CELL.sub(_CELL_GAP, row).strip() for row in rows)
    return _LOCATION.sub("", text)


def without_corners(text: str) -> str:
    """Words without the corners behind them, one on each line."""
    return _CORNERS.sub("\n", text)


def without_layout_json(text: str) -> str:
    """The texts of a layout as dots.ocr writes it: a JSON list of regions, each with its box, kind and text."""
    try:
        regions = json.loads(text)
    except ValueError:
        return text
    if isinstance(regions, dict):
        regions = [regions]
    if not isinstance(regions, list) or not all(_is_region(region) for region in regions):
        return text
    return "\n".join(str(region["text"]) for region in regions if region.get("text"))


def _is_region(region: Any) -> bool:
    return isinstance(region, dict) and "bbox" in region
