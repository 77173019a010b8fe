"""Thinking that ends, as the official SDKs see it, over real sockets: budgets, variants, and a command from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from periscope.config import load
from tests.e2e.in_process import served
from tests.serving.test_thinking import ENDING, TEMPLATE
from tests.tiny_models import write_text_model

#: The tiny model has bytes as tokens: letters only, so that it ends nothing by itself.
LETTERS = {str(token): -100 for token in range(258) if not 65 <= token < 91}
HELLO: list[Any] = [{"role": "user", "content": "Hello"}]
FILE = """\
models:
  - name: thinker
    local_path: model
    variants:
      - {name: thinker:brief, params: {thinking_budget: 6}}
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("thinking")
    write_text_model(folder / "model", chat_template=TEMPLATE, context_length=8192)
    (folder / "models.yaml").write_text(FILE)
    return folder / "models.yaml"


@asynccontextmanager
async def served_at(file: Path) -> AsyncIterator[str]:
    async with served(load(file)) as (_, port):
        yield f"http://127.0.0.1:{port}"


def test_a_budget_of_either_sdk_and_of_a_variant_ends_the_thinking(file: Path) -> None:
    """The answer has reasoning of that length, then text; usage counts it."""

    async def main() -> None:
        async with (
            served_at(file) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as sdk,
            anthropic.AsyncAnthropic(base_url=url, api_key="x") as other_sdk,
        ):
            chat = sdk.chat.completions
            asked: dict[str, Any] = {"messages": HELLO, "max_tokens": 60, "logit_bias": LETTERS, "seed": 1}
            named = await chat.create(model="thinker", extra_body={"thinking_budget": 6}, **asked)
            variant = await chat.create(model="thinker:brief", **asked)
            for completion in (named, variant):
                message = completion.choices[0].message
                assert completion.usage is not None
                assert completion.usage.completion_tokens_details is not None
                assert len(message.model_extra["reasoning_content"].strip()) == 6
                assert len(message.content or "") == 60 - 6 - len(ENDING)
                assert completion.usage.completion_tokens_details.reasoning_tokens == 6 + len("\n</think>")
            none = await chat.create(model="thinker", reasoning_effort="none", **asked)
            assert not (none.choices[0].message.model_extra or {}).get("reasoning_content", "").strip()
            told = await other_sdk.messages.create(
                model="thinker", max_tokens=2000, messages=HELLO, thinking={"type": "enabled", "budget_tokens": 1024}
            )
            assert told.content[0].type == "thinking"

    asyncio.run(asyncio.wait_for(main(), 120))


def test_a_running_request_is_told_to_answer_now(file: Path) -> None:
    """Its status says that it thinks; the stream goes on with the answer; a second command is a conflict."""

    async def main() -> None:
        async with (
            served_at(file) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="x") as sdk,
            httpx.AsyncClient(base_url=url, timeout=60) as http,
        ):
            chat = sdk.chat.completions
            stream = await chat.create(
                model="thinker", messages=HELLO, max_tokens=8000, logit_bias=LETTERS, seed=1, stream=True
            )
            num_answered, request_id = 0, ""
            async for chunk in stream:
                delta = chunk.choices[0].delta
                if not request_id and (delta.model_extra or {}).get("reasoning_content"):
                    request_id = chunk.id
                    (row,) = (await http.get("/api/requests")).json()["requests"]
                    assert (row["id"], row["thinking"]) == (request_id, True)
                    reply = await http.post(f"/api/requests/{request_id}/answer_now")
                    assert (reply.status_code, reply.json()) == (202, {"id": request_id, "answering": True})
                num_answered += bool(delta.content)
                if num_answered == 3:
                    again = await http.post(f"/api/requests/{request_id}/answer_now")
                    assert (again.status_code, again.json()["error"]["code"]) == (409, "not_thinking")
                    break
            await stream.close()
            assert num_answered == 3
            unknown = await http.post("/api/requests/chatcmpl-0/answer_now")
            assert (unknown.status_code, unknown.json()["error"]["code"]) == (404, "request_not_found")

    asyncio.run(asyncio.wait_for(main(), 120))
