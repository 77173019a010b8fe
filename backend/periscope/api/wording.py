"""How values that clients sent appear in messages and log lines: short and on one line. Pure."""

from __future__ import annotations

from typing import Any

MAX_SHOWN = 64


def clip(text: str, max_shown: int = MAX_SHOWN) -> str:
    """The text on one line of printable characters, `max_shown` of them at most."""
    shown = "".join(char if char.isprintable() else "?" for char in text[: max_shown + 1])
    return shown if len(shown) <= max_shown else shown[: max_shown - 3] + "..."


def kind_of(value: Any) -> str:
    """What a JSON value is, as a person would say it: `the string "hot"`, `a list`, `null`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {clip(repr(value))}"
        case str():
            return f'the string "{clip(value)}"'
        case list():
            return "a list" if value else "an empty list"
        case _:
            return "an object"
