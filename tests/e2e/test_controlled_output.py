"""What clients ask of the output, through the real server and the official SDK: choices, logprobs, JSON, tools."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionFunctionToolParam, ChatCompletionUserMessageParam
from pydantic import BaseModel, Field
from tokenizers import Tokenizer

from periscope.demo import EMBEDDED_MODELS
from tests.e2e.conftest import RunningServer

HELLO: list[ChatCompletionUserMessageParam] = [{"role": "user", "content": "What can you do?"}]
WEATHER: ChatCompletionFunctionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 20}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
def sdk(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0, timeout=120) as client:
        yield client


def test_n_choices_come_back_different_and_the_prompt_counts_once(sdk: openai.OpenAI) -> None:
    """Three choices that are not all one, one prompt in the usage; the same seed gives the same three again."""
    asked: dict[str, Any] = {
        "model": "demo",
        "messages": HELLO,
        "n": 3,
        "temperature": 2,
        "seed": 5,
        "max_tokens": 40,
    }
    one, again = (sdk.chat.completions.create(**asked) for _ in range(2))
    texts = [choice.message.content for choice in one.choices]
    assert len(set(texts)) > 1
    assert texts == [choice.message.content for choice in again.choices]
    single = sdk.chat.completions.create(**{**asked, "n": 1})
    assert single.choices[0].message.content == texts[0]
    assert one.usage is not None
    assert single.usage is not None
    assert one.usage.prompt_tokens == single.usage.prompt_tokens
    assert one.usage.completion_tokens > single.usage.completion_tokens


def test_streamed_choices_are_the_whole_ones(sdk: openai.OpenAI) -> None:
    """Chunks of several choices interleave; put together by index they are what the whole answer has."""
    asked: dict[str, Any] = {
        "model": "demo",
        "messages": HELLO,
        "n": 2,
        "temperature": 1.5,
        "seed": 9,
        "max_tokens": 15,
    }
    whole = sdk.chat.completions.create(**asked)
    texts, reasons = ["", ""], [0, 0]
    for chunk in sdk.chat.completions.create(**asked, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            reasons[choice.index] += choice.finish_reason is not None
    assert texts == [choice.message.content for choice in whole.choices]
    assert reasons == [1, 1]


def test_logprobs_add_up_to_the_text(sdk: openai.OpenAI) -> None:
    """One entry a token, whose bytes are the answer's; the chosen token of a greedy answer leads its alternatives."""
    reply = sdk.chat.completions.create(
        model="demo", messages=HELLO, temperature=0, max_tokens=12, logprobs=True, top_logprobs=3
    )
    (choice,) = reply.choices
    assert choice.logprobs is not None
    entries = choice.logprobs.content or []
    shown = b"".join(bytes(entry.bytes or []) for entry in entries).decode()
    assert shown.startswith(choice.message.content or "?")
    for entry in entries:
        assert entry.top_logprobs[0].token == entry.token
        assert len(entry.top_logprobs) == 3
        assert sum(math.exp(top.logprob) for top in entry.top_logprobs) <= 1.001


class Answer(BaseModel):
    """What the SDK's own parser is asked for."""

    colour: Literal["red", "blue", "no colour"]
    count: Annotated[int, Field(ge=0, le=20)]


def test_the_sdk_s_parsed_answers_fit_their_model(sdk: openai.OpenAI) -> None:
    """`response_format` as a pydantic model: strict JSON schema in, a checked object out."""
    reply = sdk.chat.completions.parse(
        model="demo", messages=HELLO, response_format=Answer, seed=1, temperature=1, max_tokens=300
    )
    assert isinstance(reply.choices[0].message.parsed, Answer)


@pytest.mark.parametrize(
    ("field", "fits"),
    [
        ({"guided_choice": ["heads", "tails"]}, "heads|tails"),
        ({"structured_outputs": {"regex": "[A-F]{3}-[0-9]{21}"}}, "[A-F]{3}-[0-9]{21}"),
        ({"grammar": 'root ::= ("left" | "right") " turn"'}, "(left|right) turn"),
    ],
)
def test_an_answer_fits_the_grammar_that_vllm_and_llama_cpp_clients_send(
    sdk: openai.OpenAI, field: dict[str, Any], fits: str
) -> None:
    """The model would write anything but that; it stops by itself, and is offered no tools of the server beside it."""
    answer = sdk.chat.completions.create(model="demo", messages=HELLO, max_tokens=60, extra_body=field)
    assert re.fullmatch(fits, answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
def test_a_forced_call_is_made_with_arguments_that_fit(sdk: openai.OpenAI, choice: Any, stream: bool) -> None:
    """The model is made to call the tool, whatever it was asked."""
    asked: dict[str, Any] = {
        "model": "demo",
        "messages": HELLO,
        "tools": [WEATHER],
        "tool_choice": choice,
        "parallel_tool_calls": False,
        "temperature": 0,
        "max_tokens": 200,
    }
    if stream:
        calls: list[Any] = []
        reasons: list[str] = []
        for chunk in sdk.chat.completions.create(**asked, stream=True):
            for part in chunk.choices:
                calls += part.delta.tool_calls or []
                reasons += [part.finish_reason] if part.finish_reason else []
        call, *pieces = calls
        assert len(pieces) > 2
        assert all(piece.index == 0 and not piece.id and not piece.function.name for piece in pieces)
        call.function.arguments = "".join(part.function.arguments for part in calls)
        reason = reasons[0]
    else:
        (part,) = sdk.chat.completions.create(**asked).choices
        (call,) = part.message.tool_calls or []
        reason = part.finish_reason
    assert call.function is not None
    assert call.function.name == "get_weather"
    assert set(json.loads(call.function.arguments or "")) == {"city"}
    assert call.id
    assert reason == "tool_calls"


class GetWeather(BaseModel):
    """What no model would guess."""

    town: Literal["Bergen", "Turku"]
    days: Annotated[int, Field(ge=2, le=9)]


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streaming"])
@pytest.mark.parametrize("extra", [{}, {"response_format": Answer}], ids=["text", "json"])
@pytest.mark.parametrize("calls", [True, False], ids=["calls", "answers"])
def test_strict_tools_and_a_format_hold_side_by_side(
    sdk: openai.OpenAI, *, calls: bool, extra: dict[str, Any], stream: bool
) -> None:
    """What agents send: `strict` tools left to the model's choice, and an output type beside; the SDK reads both."""
    tokens = Tokenizer.from_file(str(EMBEDDED_MODELS["embedded:text"] / "tokenizer.json"))
    asked: dict[str, Any] = {
        "model": "demo",
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [openai.pydantic_function_tool(GetWeather, name="get_weather", description="The weather in a city.")],
        "logit_bias": {} if calls else {str(tokens.token_to_id("<tool_call>")): -100},
        "temperature": 1,
        "seed": 3,
        "max_tokens": 300,
        **extra,
    }
    if stream:
        with sdk.chat.completions.stream(**asked) as events:
            (choice,) = events.get_final_completion().choices
    else:
        (choice,) = sdk.chat.completions.parse(**asked).choices
    if calls:
        (call,) = choice.message.tool_calls or []
        assert isinstance(call.function.parsed_arguments, GetWeather)
        assert not choice.message.content
    else:
        assert choice.message.content
        assert isinstance(choice.message.parsed, Answer if extra else type(None))
    assert choice.finish_reason == ("tool_calls" if calls else "stop")


def test_a_conversation_s_next_turn_computes_only_what_is_new(sdk: openai.OpenAI) -> None:
    """cached_tokens grows with the conversation: the turn before, its answer included, is never computed again."""
    messages: list[Any] = [{"role": "user", "content": "Hello, who are you and what can you do for me?"}]
    known = 0
    for question in ("Can you see pictures?", "How many shapes can you see?", "Thank you, goodbye!"):
        reply = sdk.chat.completions.create(model="demo", messages=messages, temperature=0, max_tokens=60)
        assert reply.usage is not None
        assert reply.usage.prompt_tokens_details is not None
        cached = reply.usage.prompt_tokens_details.cached_tokens or 0
        assert cached >= known
        # The end token, and what the template puts around the next message, are new too.
        known = reply.usage.prompt_tokens + reply.usage.completion_tokens - 4
        messages += [
            {"role": "assistant", "content": reply.choices[0].message.content},
            {"role": "user", "content": question},
        ]
