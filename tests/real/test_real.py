"""The product with a model that was trained by others: what tiny random weights cannot tell."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import mlx.core as mx
import openai
import pytest

from periscope import EngineConfig, GenerationParams, InferenceEngine, Message, Role, TextPart
from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, number, picture, square, user
from tests.real import fence_echo

NUM_TOKENS = 24
PROMPTS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Name three fruits.",
    "Count from one to five.",
    "Who wrote Hamlet?",
    "Translate 'good morning' to Spanish.",
    "Why is the sky blue?",
    "Say hello.",
)
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
ASK: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
GREEDY: dict[str, Any] = {"model": "real", "temperature": 0}


@pytest.fixture
def sdk(real_server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{real_server.url}/v1", api_key="x", max_retries=0, timeout=600) as client:
        yield client


def reference(folder: Path) -> list[tuple[int, ...]]:
    """What mlx-lm itself generates, prompt by prompt; the end token is no part of an answer."""
    from mlx_lm import load, stream_generate

    model, tokenizer = load(str(folder))[:2]
    generated = []
    for text in PROMPTS:
        prompt = tokenizer.apply_chat_template([{"role": "user", "content": text}], add_generation_prompt=True)
        steps = stream_generate(model, tokenizer, prompt, max_tokens=NUM_TOKENS)
        generated.append(tuple(step.token for step in steps if step.token not in tokenizer.eos_token_ids))
    mx.clear_cache()
    return generated


def test_tokens_are_those_of_mlx_lm_alone_and_together(real_model: Path) -> None:
    """Eight prompts, greedy and in float32: to the token what `mlx_lm` generates, one by one and all at once."""
    expected = reference(real_model)
    params = GenerationParams(temperature=0, max_tokens=NUM_TOKENS)
    chats = [[Message(Role.USER, (TextPart(text),))] for text in PROMPTS]

    async def run() -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        async with await InferenceEngine.load(str(real_model), EngineConfig(prompt_cache_bytes=0)) as engine:
            alone = [(await engine.generate(chat, params)).tokens for chat in chats]
            together = await asyncio.gather(*(engine.generate(chat, params) for chat in chats))
            return alone, [output.tokens for output in together]

    alone, together = asyncio.run(run())
    assert alone == expected
    assert together == expected


def test_tools_reach_a_model_whose_template_knows_none(sdk: openai.OpenAI) -> None:
    """The prompt is longer by the tools, not the same; the model list says that the model can be offered some."""
    without = sdk.chat.completions.create(messages=ASK, max_tokens=1, **GREEDY)
    offered = sdk.chat.completions.create(messages=ASK, tools=[WEATHER], max_tokens=1, **GREEDY)
    declined = sdk.chat.completions.create(messages=ASK, tools=[WEATHER], tool_choice="none", max_tokens=1, **GREEDY)
    assert without.usage and offered.usage and declined.usage  # noqa: PT018
    assert offered.usage.prompt_tokens > without.usage.prompt_tokens + 100
    assert declined.usage.prompt_tokens == without.usage.prompt_tokens
    entry = httpx.get(f"{str(sdk.base_url).rstrip('/')}/models").json()["data"][0]
    assert entry["capabilities"]["tools"] is True


def test_a_forced_call_is_made_and_its_result_is_heard(sdk: openai.OpenAI) -> None:
    """The call fits its schema; sent back with a result, the answer is about the result."""
    reply = sdk.chat.completions.create(
        messages=ASK, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, max_tokens=120, **GREEDY
    )
    (choice,) = reply.choices
    (call,) = choice.message.tool_calls or []
    assert call.type == "function"
    assert choice.finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments)) == {"city"}
    result: Any = {"role": "tool", "tool_call_id": call.id, "content": "Heavy snow, -3 degrees."}
    asked = [*ASK, choice.message.model_dump(exclude_none=True), result]
    answer = sdk.chat.completions.create(messages=asked, tools=[WEATHER], max_tokens=60, **GREEDY)
    assert "snow" in (answer.choices[0].message.content or "").lower()


def test_json_fits_its_schema(sdk: openai.OpenAI) -> None:
    """A real model that is constrained to a schema ends its answer, and the answer is valid."""
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 30}, "is_in_europe": {"type": "boolean"}},
        "required": ["capital", "is_in_europe"],
        "additionalProperties": False,
    }
    wanted: Any = {"type": "json_schema", "json_schema": {"name": "country", "schema": schema}}
    asked: Any = [{"role": "user", "content": "What is the capital of France, and is it in Europe? Answer in JSON."}]
    (choice,) = sdk.chat.completions.create(messages=asked, response_format=wanted, max_tokens=80, **GREEDY).choices
    assert choice.finish_reason == "stop"
    answer = json.loads(choice.message.content or "")
    assert set(answer) == {"capital", "is_in_europe"}
    assert "Paris" in answer["capital"]


@pytest.mark.parametrize(
    ("image", "question", "named"),
    [
        (circle("red"), "What colour is the circle?", "red"),
        (square("blue"), "What colour is the square?", "blue"),
        (number("42"), "What number is in the picture?", "42"),
    ],
    ids=["circle", "square", "number"],
)
def test_pictures_are_seen_through_the_captioner(sdk: openai.OpenAI, image: Any, question: str, named: str) -> None:
    """A text model that never saw a picture names what is in it."""
    asked: Any = [user(question, picture(image))]
    reply = sdk.chat.completions.create(messages=asked, max_tokens=40, **GREEDY)
    assert named in (reply.choices[0].message.content or "")


def test_the_fence_is_not_repeated(real_model: Path) -> None:
    """Of thirty answers about pictures at most one holds text of the fence, and most are right."""

    async def run() -> fence_echo.Echoes:
        asked = list(fence_echo.questions(await fence_echo.described()))
        async with await InferenceEngine.load(str(real_model), EngineConfig(max_num_seqs=len(asked))) as engine:
            return await fence_echo.ask(engine, asked, fence_echo.WORDINGS["now"])

    came = asyncio.run(run())
    print(f"echoed {came.num_echoed}, right {came.num_right} of {came.num_questions}")  # noqa: T201
    assert came.num_questions == 30
    assert came.num_echoed <= 1
    assert came.num_right >= 22
