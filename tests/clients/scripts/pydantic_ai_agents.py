"""pydantic-ai's agents over OpenAI's chat completions or responses, or Anthropic's messages, by the argument."""

import asyncio
import sys
from typing import Any, Literal

from checks import (
    ABOUT_PICTURE,
    ABOUT_WEATHER,
    BASE_URL,
    HELLO,
    KEY,
    MODEL,
    NO_MODEL,
    PICTURE,
    REPORT,
    URL,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, NativeOutput
from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

API = sys.argv[1]


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def agent(name: str = MODEL, key: str = KEY, **more: Any) -> Any:
    openai = OpenAIProvider(base_url=BASE_URL, api_key=key)
    model: Any
    if API == "chat":
        model = OpenAIChatModel(name, provider=openai)
    elif API == "responses":
        model = OpenAIResponsesModel(name, provider=openai)
    else:
        model = AnthropicModel(name, provider=AnthropicProvider(base_url=URL, api_key=key))
    return Agent(model, model_settings={"temperature": 0, "max_tokens": 200}, **more)


def chat() -> None:
    answer = agent().run_sync(HELLO)
    assert answer.output
    assert answer.usage.output_tokens > 0


def stream() -> None:
    async def pieces() -> list[str]:
        async with agent().run_stream(HELLO) as streamed:
            return [piece async for piece in streamed.stream_text(delta=True, debounce_by=None)]

    assert len(asyncio.run(pieces())) > 1


def tools() -> None:
    asked: list[str] = []

    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return REPORT

    assert agent(tools=[get_weather]).run_sync(ABOUT_WEATHER).output
    assert asked


def schema() -> None:
    # pydantic-ai asks Claude's models alone for JSON, and others by a tool.
    for output in (Colour, NativeOutput(Colour)) if API != "anthropic" else (Colour,):
        assert isinstance(agent(output_type=output).run_sync(HELLO).output, Colour)


def picture() -> None:
    answer = agent().run_sync([ABOUT_PICTURE, BinaryContent(PICTURE.read_bytes(), media_type="image/png")])
    names_red(answer.output)


def unknown_model() -> None:
    with refused("404", NO_MODEL):
        agent(NO_MODEL).run_sync(HELLO)


def wrong_key() -> None:
    with refused("401"):
        agent(key=WRONG_KEY).run_sync(HELLO)


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
)
