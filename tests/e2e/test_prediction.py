"""OpenAI's `prediction` and `prompt_lookup`, over a real server: what repeats is the same, and is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from periscope.config import load
from tests.e2e.in_process import served
from tests.tiny_models import write_text_model

FILE = """
models:
  - {name: plain, local_path: ./model}
  - {name: looking, local_path: ./model, params: {prompt_lookup: true}}
"""
ASKED: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Repeat after me: one two three one two three one two three."}],
    "temperature": 0,
    "max_tokens": 200,
    "logit_bias": {str(token): -100 for token in range(258) if not 65 <= token < 91},  # letters, a token each
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prediction")
    write_text_model(folder / "model")
    (folder / "models.yaml").write_text(FILE)
    return folder / "models.yaml"


def test_a_predicted_answer_is_the_same_and_says_what_was_right(file: Path) -> None:
    """By OpenAI's own SDK: usage and the status count what was drafted, and nothing where nothing was."""

    async def main() -> None:
        async with (
            served(load(file)) as (_, port),
            openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="x") as sdk,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http,
        ):
            chat = sdk.chat.completions
            free = await chat.create(model="plain", **ASKED)
            said = free.choices[0].message.content or ""
            assert drafts_of(free) == (0, 0)
            assert [row["drafts"] for row in (await http.get("/api/status")).json()["models"]] == [None, None]
            parts = [{"type": "text", "text": said[:40]}, {"type": "text", "text": said[40:]}]
            contents: list[Any] = [said, parts, "X" * 9_000]
            told = [
                await chat.create(model="plain", prediction={"type": "content", "content": content}, **ASKED)
                for content in contents
            ]
            looked = await chat.create(model="looking", **ASKED)
            assert {each.choices[0].message.content for each in (*told, looked)} == {said}
            assert min(drafts_of(told[0])[0], drafts_of(told[1])[0]) > len(said) // 2
            accepted, rejected = (sum(counts) for counts in zip(*map(drafts_of, told), strict=True))
            drafts = (await http.get("/api/status")).json()["models"][0]["drafts"]
            assert (drafts["accepted"], drafts["rejected"]) == (accepted, rejected)
            assert drafts["acceptance"] == round(accepted / (accepted + rejected), 3)

    asyncio.run(main())


def drafts_of(completion: Any) -> tuple[int, int]:
    """What its usage says of drafted tokens: accepted, rejected."""
    told = completion.usage.completion_tokens_details
    return told.accepted_prediction_tokens, told.rejected_prediction_tokens
