"""OpenAI's Agents SDK over chat completions or, by the argument, over responses."""

import asyncio
import sys
from typing import Any, Literal

from agents import (
    Agent,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from checks import (
    ABOUT_PICTURE,
    BASE_URL,
    HELLO,
    KEY,
    MODEL,
    NO_MODEL,
    PICTURE_URL,
    REPORT,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

set_tracing_disabled(disabled=True)
MODEL_OF = OpenAIResponsesModel if sys.argv[1] == "responses" else OpenAIChatCompletionsModel


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def agent(name: str = MODEL, key: str = KEY, tool_choice: str | None = None, **more: Any) -> Agent[Any]:
    client = AsyncOpenAI(base_url=BASE_URL, api_key=key, max_retries=0)
    settings = ModelSettings(temperature=0, max_tokens=200, tool_choice=tool_choice)
    return Agent("helper", model=MODEL_OF(name, client), model_settings=settings, **more)


def ask(helper: Agent[Any], question: Any = HELLO) -> Any:
    return asyncio.run(Runner.run(helper, question)).final_output


def chat() -> None:
    assert ask(agent())


def stream() -> None:
    async def kinds() -> list[str]:
        streamed = Runner.run_streamed(agent(), HELLO)
        return [event.data.type async for event in streamed.stream_events() if event.type == "raw_response_event"]

    assert asyncio.run(kinds()).count("response.output_text.delta") > 1


def tools() -> None:
    asked: list[str] = []

    @function_tool
    def get_weather(city: str) -> str:
        """The weather in a city."""
        asked.append(city)
        return REPORT

    assert ask(agent(tool_choice="required", tools=[get_weather]))
    assert len(asked) == 1


def schema() -> None:
    assert isinstance(ask(agent(output_type=Colour)), Colour)


def picture() -> None:
    parts = [{"type": "input_text", "text": ABOUT_PICTURE}, {"type": "input_image", "image_url": PICTURE_URL}]
    names_red(ask(agent(), [{"role": "user", "content": parts}]))


def unknown_model() -> None:
    with refused("NotFoundError", NO_MODEL):
        ask(agent(NO_MODEL))


def wrong_key() -> None:
    with refused("AuthenticationError"):
        ask(agent(key=WRONG_KEY))


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
)
