"""Amounts as people read them. Pure."""

from __future__ import annotations

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def size(num_bytes: int) -> str:
    """A number of bytes as downloads are stated, in powers of 1000."""
    value, unit = float(num_bytes), "B"
    for unit in ("B", "kB", "MB", "GB"):  # noqa: B007 - the last one that fits
        if value < 1000:
            break
        value /= 1000
    else:
        unit = "TB"
    return f"{value:.{0 if unit == 'B' else 1}f} {unit}"


def counted(number: int, noun: str) -> str:
    """How many there are: `1 model`, `2 models`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time in the largest unit and the next smaller one: `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 1 h`."""
    total = round(seconds)
    for large, small, large_s, small_s in (
        ("d", "h", _DAY_S, _HOUR_S),
        ("h", "min", _HOUR_S, _MINUTE_S),
        ("min", "s", _MINUTE_S, 1),
    ):
        if total >= large_s:
            rest = total % large_s // small_s
            return f"{total // large_s} {large}" + (f" {rest} {small}" if rest else "")
    return f"{total} s"
