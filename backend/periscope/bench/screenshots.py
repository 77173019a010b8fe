"""Screenshots of the kinds that people drop into chats, with the text that stands in each. Pure; Pillow's own font."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from PIL import Image, ImageDraw, ImageFont

from periscope.bench.words import words

_EXIF_ORIENTATION, _ROTATED = 0x0112, 6
_MARGIN_PX: Final = 24
_ERRORS: Final = (
    ("ZeroDivisionError", "division by zero"),
    ("KeyError", "'user_id'"),
    ("FileNotFoundError", "[Errno 2] No such file or directory: 'config.toml'"),
    ("TypeError", "unsupported operand type(s) for +: 'int' and 'str'"),
    ("IndexError", "list index out of range"),
)
_GOODS: Final = ("Screws M4", "Hinges", "Sandpaper", "Wood glue", "Brass hooks", "Paint, white", "Brushes")


@dataclass(frozen=True, slots=True)
class Screenshot:
    """A picture file, and the lines that stand in it from top to bottom."""

    kind: str
    data: bytes
    media_type: str
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Style:
    """How lines are drawn."""

    size_px: int
    ink: str
    paper: str


_TERMINAL: Final = Style(18, "#d0d0d0", "black")
_EDITOR: Final = Style(18, "#1f2328", "white")
_DIALOG: Final = Style(20, "black", "#ececec")
_DARK: Final = Style(17, "#c9d1d9", "#0d1117")
_PAGE: Final = Style(20, "black", "white")
_SMALL: Final = Style(13, "#202020", "white")


def screenshot(number: int, seed: int = 1) -> Screenshot:
    """The screenshot of this number; the kinds take turns."""
    kind = tuple(_KINDS)[number % len(_KINDS)]
    return _KINDS[kind](random.Random(f"{seed}/{number}"))


def traceback_lines(drawn: random.Random) -> tuple[str, ...]:
    """What Python prints when an exception is not caught; the last line names it."""
    name, what = drawn.choice(_ERRORS)
    module, line = drawn.choice(("app", "billing", "report", "sync")), drawn.randint(10, 400)
    call = f"{drawn.choice(('load', 'total', 'merge', 'send'))}_{drawn.choice(('orders', 'rows', 'users'))}"
    return (
        f"$ python {module}.py --verbose",
        "Traceback (most recent call last):",
        f'  File "/home/ada/{module}.py", line {line}, in <module>',
        f"    main({call}())",
        f'  File "/home/ada/{module}.py", line {line - 7}, in {call}',
        f"    return {call.split('_')[1]}[key] / count",
        f"{name}: {what}",
    )


def table_lines(drawn: random.Random) -> tuple[tuple[str, ...], ...]:
    """An invoice's rows, its heading first and its total last."""
    goods = drawn.sample(_GOODS, 4)
    rows = [(each, drawn.randint(1, 40), drawn.randint(99, 4999)) for each in goods]
    total = sum(count * cents for _, count, cents in rows)
    body = [(name, str(count), f"{count * cents / 100:.2f}") for name, count, cents in rows]
    return (("Article", "Pieces", "Price"), *body, ("Total", "", f"{total / 100:.2f}"))


def drawn_lines(lines: Sequence[str], style: Style = _PAGE) -> Image.Image:
    """These lines below each other."""
    font, height = _font(style.size_px), style.size_px * 3 // 2
    picture = _paper(max(map(font.getlength, lines)), height * len(lines), style)
    pen = ImageDraw.Draw(picture)
    for at, line in enumerate(lines):
        pen.text((_MARGIN_PX, _MARGIN_PX + at * height), line, fill=style.ink, font=font)
    return picture


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size_px)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType, so it cannot draw text of any size.")
    return font


def _paper(width: float, height: float, style: Style) -> Image.Image:
    return Image.new("RGB", (round(width) + 2 * _MARGIN_PX, round(height) + 2 * _MARGIN_PX), style.paper)


def _terminal(drawn: random.Random) -> Screenshot:
    lines = traceback_lines(drawn)
    return _png("terminal", drawn_lines(lines, _TERMINAL), lines)


def _code(drawn: random.Random) -> Screenshot:
    name, limit = drawn.choice(("retry", "fetch", "parse")), drawn.randint(2, 99)
    lines = (
        f"def {name}(items: list[str], limit: int = {limit}) -> dict[str, int]:",
        "    counts = {}",
        "    for index, item in enumerate(items[:limit]):",
        "        if not item.startswith('#'):",
        f"            counts[item] = counts.get(item, 0) + {drawn.randint(1, 9)}",
        "    return counts",
    )
    return _png("code", drawn_lines(lines, _EDITOR), lines)


def _dialog(drawn: random.Random) -> Screenshot:
    """A title, a sentence and two buttons side by side."""
    title = drawn.choice(("Save changes?", "Update failed", "Low disk space", "Delete 3 files?"))
    lines = (title, f"{words(6, drawn.random()).capitalize()}.", f"{words(5, drawn.random()).capitalize()}.")
    text = drawn_lines(lines, _DIALOG)
    picture = Image.new("RGB", (max(420, text.width), text.height + 60), _DIALOG.paper)
    picture.paste(text)
    pen, font, left, top = ImageDraw.Draw(picture), _font(_DIALOG.size_px), picture.width - 300, text.height
    for at, button in enumerate(("Cancel", "OK")):
        box = (left + at * 140, top, left + at * 140 + 120, top + 40)
        pen.rounded_rectangle(box, 8, fill="white", outline="#a0a0a0")
        pen.text(((box[0] + box[2]) / 2, (box[1] + box[3]) / 2), button, fill="black", font=font, anchor="mm")
    return _png("dialog", picture, (*lines, "Cancel OK"))


def _table(drawn: random.Random) -> Screenshot:
    rows, font, height = table_lines(drawn), _font(_PAGE.size_px), 36
    picture = _paper(520, height * len(rows), _PAGE)
    pen, right = ImageDraw.Draw(picture), picture.width - _MARGIN_PX
    for at, (name, count, price) in enumerate(rows):
        middle = _MARGIN_PX + (at + 0.5) * height
        pen.text((_MARGIN_PX + 8, middle), name, fill="black", font=font, anchor="lm")
        pen.text((right - 160, middle), count, fill="black", font=font, anchor="rm")
        pen.text((right - 8, middle), price, fill="black", font=font, anchor="rm")
        pen.line((_MARGIN_PX, middle + height / 2, right, middle + height / 2), fill="#909090")
    return _png("table", picture, tuple(" ".join(filter(None, row)) for row in rows))


def _small_print(drawn: random.Random) -> Screenshot:
    lines = tuple(f"{words(12, drawn.random()).capitalize()}." for _ in range(10))
    return _png("small print", drawn_lines(lines, _SMALL), lines)


def _dark(drawn: random.Random) -> Screenshot:
    lines = tuple(f"{words(7, drawn.random()).capitalize()}, {drawn.randint(1, 9999)}." for _ in range(7))
    return _png("dark theme", drawn_lines(lines, _DARK), lines)


def _turned(drawn: random.Random) -> Screenshot:
    """A photo that lies on its side in the file; EXIF says how it is held."""
    lines = tuple(f"{words(6, drawn.random()).capitalize()}." for _ in range(6))
    exif = Image.Exif()
    exif[_EXIF_ORIENTATION] = _ROTATED
    file = io.BytesIO()
    lying = drawn_lines(lines).transpose(Image.Transpose.ROTATE_90)
    lying.save(file, "JPEG", quality=90, exif=exif)
    return Screenshot("turned by EXIF", file.getvalue(), "image/jpeg", lines)


def _png(kind: str, picture: Image.Image, lines: tuple[str, ...]) -> Screenshot:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return Screenshot(kind, file.getvalue(), "image/png", lines)


_KINDS: Final = {
    "terminal": _terminal,
    "code": _code,
    "dialog": _dialog,
    "table": _table,
    "small print": _small_print,
    "dark theme": _dark,
    "turned by EXIF": _turned,
}
