"""What a server says in place of an answer, as one typed error. Pure but for the clock that dates are read by."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

from periscope.errors import RemoteRefused

#: Of a server's message, shown to a person.
_MAX_SAID_CHARS = 500
#: Some servers repeat the picture that they could not take.
_DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,[\w+/=-]*")


def refusal_of(server: str, status: int, headers: Mapping[str, str], body: bytes) -> RemoteRefused:
    """An HTTP answer that is no success. `server`: how the message names it."""
    try:
        told = json.loads(body)
    except (ValueError, RecursionError):  # a proxy's page, for example
        told = None
    said = _said_in(told)
    return RemoteRefused(
        f"The server at {server} answered with status {status}: {said or '(no reason given)'}",
        said=said,
        code=_code_in(told),
        status=status,
        retry_after_s=_retry_after_in(headers.get("retry-after"), told),
    )


def refusal_inside(server: str, told: Any) -> RemoteRefused:
    """`{"error": ...}` where a chunk or an answer should have been."""
    said = _said_in(told)
    return RemoteRefused(
        f"The server at {server} failed: {said or '(no reason given)'}",
        said=said,
        code=_code_in(told),
        retry_after_s=_retry_after_in(None, told),
    )


def _said_in(told: Any) -> str | None:
    """OpenAI says `{"error": {"message": ...}}`; others `{"error": ...}`, `{"detail": ...}` or `{"message": ...}`."""
    if not isinstance(told, dict):
        return None
    reasons = (told.get("error"), told.get("detail"), told.get("message"))
    reason = next((reason for reason in reasons if reason), None)
    if isinstance(reason, list):  # FastAPI's: one entry for each field
        reason = reason[0] if reason else None
    if isinstance(reason, dict):
        reason = reason.get("message") or reason.get("msg")
    if not isinstance(reason, str):
        return None
    reason = _DATA_URL.sub("data:...", reason)
    visible = "".join(character if character.isprintable() else " " for character in reason[: 4 * _MAX_SAID_CHARS])
    words = " ".join(visible.split())
    return f"{words[:_MAX_SAID_CHARS]} ..." if len(words) > _MAX_SAID_CHARS else words or None


def _code_in(told: Any) -> str | None:
    error = told.get("error") if isinstance(told, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _retry_after_in(header: str | None, told: Any) -> float | None:
    """The header as seconds or as a date, else the `retry_after` that our own streams send in the error object."""
    if header is not None:
        return _seconds(header) if _seconds(header) is not None else _seconds_until(header)
    error = told.get("error") if isinstance(told, dict) else None
    return _seconds(error.get("retry_after")) if isinstance(error, dict) else None


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _seconds_until(date: str) -> float | None:
    try:
        return max(0.0, parsedate_to_datetime(date).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
