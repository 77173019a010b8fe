"""Twenty questions that only the text in a picture answers: tracebacks in terminals and scanned invoices."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from periscope.bench.screenshots import screenshot, table_lines
from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import picture, user
from tests.vision.documents.pdfs import pdf_url, scanned_pdf

NUM_EACH = 10
#: The number of a screenshot decides its kind; every seventh is a terminal.
TERMINALS = range(0, 7 * NUM_EACH, 7)


@dataclass(frozen=True)
class Question:
    text: str
    wanted: str
    part: dict[str, Any] = field(repr=False)


def tracebacks() -> Iterator[Question]:
    for at in TERMINALS:
        shot = screenshot(at)
        name = shot.lines[-1].partition(":")[0]
        image = Image.open(io.BytesIO(shot.data))
        yield Question("Which exception was raised? Answer with its name.", name, picture(image))


def invoices() -> Iterator[Question]:
    for at in range(NUM_EACH):
        heading, *rows, (_, _, total) = table_lines(random.Random(at))
        lines = [f"INVOICE 2026-{100 + at}", *("   ".join(row) for row in (heading, *rows)), f"Total   {total} EUR"]
        file = {"filename": "invoice.pdf", "file_data": pdf_url(scanned_pdf(lines))}
        yield Question("What is the total of this invoice?", total, {"type": "file", "file": file})


def answer(client: httpx.Client, question: Question) -> str:
    body = {"model": "real", "temperature": 0, "max_tokens": 40, "messages": [user(question.part, question.text)]}
    reply = client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    content: str = reply.json()["choices"][0]["message"]["content"]
    return content


def test_the_text_in_pictures_answers_questions(real_server: RunningServer) -> None:
    """A text model of 135 million parameters names the exception or the total; the number of right answers is shown."""
    num_right = 0
    with httpx.Client(base_url=real_server.url, timeout=600) as client:
        for question in (*tracebacks(), *invoices()):
            said = answer(client, question)
            num_right += (is_right := question.wanted in said)
            print(f"{'right' if is_right else 'WRONG'}: wanted {question.wanted!r}, said {said!r}")  # noqa: T201
    print(f"right: {num_right} of {2 * NUM_EACH}")  # noqa: T201
    assert num_right >= 19
