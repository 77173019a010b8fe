"""LiteLLM, speaking OpenAI's API or Anthropic's, by the argument."""

import json
import sys
from typing import Any, Literal

import litellm
from checks import (
    ABOUT_PICTURE,
    BASE_URL,
    HELLO,
    KEY,
    MODEL,
    NO_MODEL,
    PICTURE_URL,
    REPORT,
    URL,
    WEATHER,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from pydantic import BaseModel

PROVIDER = sys.argv[1]
QUESTION: list[Any] = [{"role": "user", "content": HELLO}]
TOOL = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def ask(messages: Any = QUESTION, *, model: str = MODEL, key: str = KEY, **more: Any) -> Any:
    base = BASE_URL if PROVIDER == "openai" else URL
    return litellm.completion(
        model=f"{PROVIDER}/{model}",
        api_base=base,
        api_key=key,
        messages=messages,
        max_tokens=100,
        num_retries=0,
        **more,
    )


def chat() -> None:
    answer = ask()
    assert answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def stream() -> None:
    deltas = [chunk.choices[0].delta.content for chunk in ask(stream=True) if chunk.choices]
    assert len([delta for delta in deltas if delta]) > 1


def tools() -> None:
    forced = {"type": "function", "function": {"name": "get_weather"}}
    message = ask(tools=[TOOL], tool_choice=forced).choices[0].message
    (call,) = message.tool_calls
    assert set(json.loads(call.function.arguments)) == {"city"}
    result = {"role": "tool", "tool_call_id": call.id, "content": REPORT}
    assert ask([*QUESTION, message.model_dump(), result], tools=[TOOL]).choices[0].message.content is not None


def schema() -> None:
    Colour.model_validate_json(ask(response_format=Colour).choices[0].message.content)


def picture() -> None:
    parts = [{"type": "text", "text": ABOUT_PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE_URL}}]
    names_red(ask([{"role": "user", "content": parts}]).choices[0].message.content)


def unknown_model() -> None:
    with refused("NotFoundError", NO_MODEL):
        ask(model=NO_MODEL)


def wrong_key() -> None:
    with refused("AuthenticationError"):
        ask(key=WRONG_KEY)


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
)
