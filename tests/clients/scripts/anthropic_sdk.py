"""Anthropic's own SDK, Python."""

from typing import Any, Literal

import anthropic
from checks import (
    ABOUT_PICTURE,
    HELLO,
    KEY,
    MODEL,
    NO_MODEL,
    PICTURE_BASE64,
    REPORT,
    URL,
    WEATHER,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from pydantic import BaseModel

client = anthropic.Anthropic(base_url=URL, api_key=KEY, max_retries=0)
ASKED: Any = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": HELLO}]}
TOOL: Any = {"name": "get_weather", "input_schema": WEATHER}


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def chat() -> None:
    message = client.messages.create(**ASKED)
    assert text_of(message)
    assert message.usage.output_tokens > 0


def stream() -> None:
    with client.messages.stream(**ASKED) as events:
        streamed = "".join(events.text_stream)
        final = events.get_final_message()
    assert streamed
    assert streamed == text_of(final)
    assert final.stop_reason == "end_turn"


def tools() -> None:
    message = client.messages.create(**ASKED, tools=[TOOL], tool_choice={"type": "tool", "name": "get_weather"})
    (call,) = message.content
    assert call.type == "tool_use"
    result: Any = {"type": "tool_result", "tool_use_id": call.id, "content": REPORT}
    turns = [
        *ASKED["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": [result]},
    ]
    answer = client.messages.create(**ASKED | {"messages": turns}, tools=[TOOL], tool_choice={"type": "none"})
    assert text_of(answer)


def schema() -> None:
    assert isinstance(client.messages.parse(**ASKED, output_format=Colour).parsed_output, Colour)


def picture() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE_BASE64}
    parts = [{"type": "image", "source": source}, {"type": "text", "text": ABOUT_PICTURE}]
    names_red(text_of(client.messages.create(**ASKED | {"messages": [{"role": "user", "content": parts}]})))


def unknown_model() -> None:
    with refused("NotFoundError", "not_found_error", NO_MODEL):
        client.messages.create(**ASKED | {"model": NO_MODEL})


def wrong_key() -> None:
    with refused("AuthenticationError", "authentication_error"):
        client.with_options(api_key=WRONG_KEY).messages.create(**ASKED)


def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.messages.count_tokens(model=MODEL, messages=ASKED["messages"]).input_tokens > 0


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
    models=models,
)
