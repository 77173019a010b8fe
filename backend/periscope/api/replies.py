"""JSON answers, and the methods of routes that only read."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from starlette.responses import Response

#: HEAD is answered like GET, without the body.
GET = ["GET", "HEAD"]
_LOWEST_LOGPROB: Final = -9999.0
_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def dump_json(value: Any) -> bytes:
    """Compact JSON in ASCII, because line readers of some SSE clients split text at U+2028 or U+0085.

    Raises:
        ValueError: the value holds NaN or an infinity.
    """
    return _ENCODER.encode(value).encode("ascii")


def json_number(value: float | None, digits: int = 3) -> float | None:
    """The value rounded; None for NaN and infinities, which JSON cannot write."""
    return None if value is None or not math.isfinite(value) else round(value, digits)


def json_logprob(logprob: float | None) -> float | None:
    """A log-probability; OpenAI's -9999 for that of 0, because JSON cannot write infinities."""
    return None if logprob is None else max(_LOWEST_LOGPROB, logprob)


class JSONReply(Response):
    """An answer whose body is JSON."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        return dump_json(content)
