"""Twelve turns with nine pictures and a document of five pages, and a server that ends in the middle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.drawing import circle, number, picture, square, user
from tests.e2e.test_restart import life_of, said
from tests.vision.documents.pdfs import pdf_url, picture_pdf

CONFIG = """\
caption_cache: {path: captions.sqlite3}
prompt_cache: {path: prompts}
models:
- name: demo
  local_path: embedded:text
  params: {temperature: 0, max_tokens: 6}
  capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, max_tokens: 24, max_page_px: 200}}
- name: eyes
  local_path: embedded:captioner
"""
NUM_PICTURES, NUM_PAGES = 9, 5
#: The last turn of the server's first life.
LAST_TURN = 7


def attached() -> dict[str, Any]:
    """A document whose pages have to be looked at."""
    pages = [
        circle("red", 160),
        square("green", 160),
        circle("blue", 160),
        number("7", size=160),
        number("8", size=160),
    ]
    return {"type": "file", "file": {"filename": "scan.pdf", "file_data": pdf_url(picture_pdf(*pages))}}


def looked_up(call_id: str, shown: dict[str, Any]) -> list[dict[str, Any]]:
    """A call of a client's tool, and the picture that it gave."""
    call = {"id": call_id, "type": "function", "function": {"name": "camera", "arguments": "{}"}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call_id, "content": [shown]},
    ]


def turns() -> list[list[dict[str, Any]]]:
    """What the client adds to the conversation in each turn."""
    shown = [picture(circle(colour, 96)) for colour in ("red", "blue", "green", "orange", "purple")]
    shown += [picture(square(colour, 96)) for colour in ("red", "blue", "green", "orange")]
    return [
        [user("What is this?", shown[0])],
        [user("And this?", shown[1])],
        [user("Take a picture."), *looked_up("c1", shown[2])],
        [user(shown[3], "Which colour?")],
        [user("And here?", shown[4])],
        [user("Read this.", attached())],
        [user("Take another."), *looked_up("c2", shown[5])],
        [user("What is this?", shown[6])],
        [user("And now?", shown[7])],
        [user("Which was the first?")],
        [user("One more.", shown[8])],
        [user("Thank you.")],
    ]


def held(client: httpx.Client, chat: list[dict[str, Any]], added: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The usage of each turn; `chat` grows by the turns and the answers."""
    told = []
    for messages in added:
        chat += messages
        answer, usage = said(client, chat)
        chat.append({"role": "assistant", "content": answer})
        told.append({**usage, "num_made": usage["num_images"] - usage["num_cache_hits"] - usage["num_failed"]})
    return told


def cached(told: list[dict[str, Any]]) -> list[int]:
    return [usage["prompt_tokens_details"]["cached_tokens"] for usage in told]


@pytest.mark.parametrize("is_killed", [False, True])
def test_everything_is_described_once_ever(tmp_path: Path, *, is_killed: bool) -> None:
    """The prompt cache serves more of every turn than of the last, across a restart, too; after a kill in each life."""
    config = tmp_path / "models.yaml"
    config.write_text(CONFIG)
    chat: list[dict[str, Any]] = []
    with life_of(config) as (server, client):
        before = held(client, chat, turns()[:LAST_TURN])
        while client.get("/api/captions").json()["stats"]["file"]["num_unwritten"]:
            pass
        if not is_killed:
            assert server.stop() == 0
    with life_of(config) as (_, client):
        after = held(client, chat, turns()[LAST_TURN:])
    told = before + after
    assert [usage["num_made"] for usage in told] == [1, 1, 1, 1, 1, NUM_PAGES, 1, 1, 1, 0, 1, 0]
    assert told[-1]["num_images"] == NUM_PICTURES + NUM_PAGES
    assert all(usage["num_failed"] == 0 for usage in told)
    assert [usage["reader_ms"] > 0 for usage in told] == [usage["num_made"] > 0 for usage in told]
    for life in (cached(before), cached(after)) if is_killed else (cached(told),):
        assert life == sorted(set(life))
        assert life[0] < life[-1]
    assert cached(after)[1] > told[LAST_TURN - 1]["prompt_tokens"]
