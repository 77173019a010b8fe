"""What servers say in place of an answer."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import pytest

from periscope.remote.refusals import refusal_inside, refusal_of


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"error": {"message": "No."}}', "No."),
        (b'{"error": "Nope."}', "Nope."),
        (b'{"detail": "Not here."}', "Not here."),
        (b'{"detail": [{"loc": ["body", "model"], "msg": "Field required"}]}', "Field required"),
        (b'{"object": "error", "message": "Too long.", "code": 400}', "Too long."),
        (b'{"error": {"message": "two\\nlines\\u001b[31m"}}', "two lines [31m"),
        (b"<html>", None),
        (b"", None),
        (b"\xff", None),
        (b"[]", None),
        (b'{"error": {}}', None),
        (b'{"error": {"message": 7}}', None),
        (b"[" * 50_000, None),
    ],
)
def test_a_refusal_is_told_in_the_servers_words(body: bytes, said: str | None) -> None:
    """Ours, a peer's, or a proxy's in between, which may be anything, and nothing that steers a terminal."""
    refusal = refusal_of("http://h/v1", 400, {}, body)
    assert refusal.said == said
    assert refusal.message == f"The server at http://h/v1 answered with status 400: {said or '(no reason given)'}"


def test_a_long_message_is_cut() -> None:
    """A page of text is not passed on."""
    refusal = refusal_of("h", 500, {}, json.dumps({"error": "word " * 100_000}).encode())
    assert len(refusal.message) < 600


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7),
        ("0.5", 0.5),
        ("-1", None),
        ("soon", None),
        ("inf", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        (None, 3),
    ],
)
def test_retry_after_is_told_in_seconds(header: str | None, seconds: float | None) -> None:
    """Given as seconds, as a date, or in our own error object; what makes no sense is passed over."""
    headers = {} if header is None else {"retry-after": header}
    refusal = refusal_of("h", 503, headers, b'{"error": {"message": "Full.", "retry_after": 3}}')
    assert refusal.retry_after_s == (max(0, seconds) if seconds is not None else None)
    later = refusal_of("h", 503, {"retry-after": formatdate(time.time() + 100, usegmt=True)}, b"").retry_after_s
    assert later is not None
    assert 0 < later <= 100


@pytest.mark.parametrize(("code", "told"), [("model_not_found", "model_not_found"), (404, None), (None, None)])
def test_a_code_is_kept_if_it_is_a_name(code: object, told: str | None) -> None:
    """Some servers repeat the status there."""
    assert refusal_inside("h", {"error": {"message": "No.", "code": code}}).code == told
