"""OpenAI's own SDK, Python."""

from typing import Any, Literal

import openai
from checks import (
    ABOUT_PICTURE,
    BASE_URL,
    EMBEDDER,
    HELLO,
    KEY,
    MODEL,
    NO_MODEL,
    PICTURE_URL,
    REPORT,
    WEATHER,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from pydantic import BaseModel

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0)
QUESTION: list[Any] = [{"role": "user", "content": HELLO}]
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER, "strict": True}}


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def chat() -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


def stream() -> None:
    with client.chat.completions.stream(
        model=MODEL, messages=QUESTION, stream_options={"include_usage": True}
    ) as events:
        kinds = {event.type for event in events}
        final = events.get_final_completion()
    assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
    assert final.choices[0].message.content
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None


def tools() -> None:
    forced: Any = {"type": "function", "function": {"name": "get_weather"}}
    message = (
        client.chat.completions.create(model=MODEL, messages=QUESTION, tools=[TOOL], tool_choice=forced)
        .choices[0]
        .message
    )
    assert message.tool_calls
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": REPORT}
    turns = [*QUESTION, message, result]
    answer = client.chat.completions.create(model=MODEL, messages=turns, tools=[TOOL], tool_choice="none")
    assert answer.choices[0].message.content


def schema() -> None:
    answer = client.chat.completions.parse(model=MODEL, messages=QUESTION, response_format=Colour)
    assert isinstance(answer.choices[0].message.parsed, Colour)


def picture() -> None:
    parts: Any = [{"type": "text", "text": ABOUT_PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE_URL}}]
    answer = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    names_red(answer.choices[0].message.content)


def unknown_model() -> None:
    with refused("NotFoundError", "model_not_found", NO_MODEL):
        client.chat.completions.create(model=NO_MODEL, messages=QUESTION)


def wrong_key() -> None:
    with refused("AuthenticationError", "invalid_api_key"):
        client.with_options(api_key=WRONG_KEY).chat.completions.create(model=MODEL, messages=QUESTION)


def responses() -> None:
    answer = client.responses.create(model=MODEL, input=HELLO)
    assert answer.output_text
    with client.responses.stream(model=MODEL, input="And now?", previous_response_id=answer.id) as events:
        kinds = {event.type for event in events}
        final = events.get_final_response()
    assert {"response.created", "response.output_text.delta", "response.completed"} <= kinds, kinds
    assert final.output_text
    parts: Any = [{"type": "input_text", "text": ABOUT_PICTURE}, {"type": "input_image", "image_url": PICTURE_URL}]
    names_red(client.responses.create(model=MODEL, input=[{"role": "user", "content": parts}]).output_text)
    parsed = client.responses.parse(model=MODEL, input=HELLO, text_format=Colour)
    assert isinstance(parsed.output_parsed, Colour)
    with refused("NotFoundError", NO_MODEL):
        client.responses.create(model=NO_MODEL, input=HELLO)


def embeddings() -> None:
    made = client.embeddings.create(model=EMBEDDER, input=[HELLO, REPORT])
    assert len(made.data) == 2
    assert len(made.data[0].embedding) == len(made.data[1].embedding) > 1


def completions() -> None:
    assert client.completions.create(model=MODEL, prompt="A red", max_tokens=4).choices[0].text


def models() -> None:
    assert MODEL in [model.id for model in client.models.list()]


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
    models=models,
    responses=responses,
    embeddings=embeddings,
    completions=completions,
)
