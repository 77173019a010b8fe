"""LangChain's models, by the argument: langchain-openai over chat completions or responses, or langchain-anthropic."""

import sys
from typing import Annotated, Any, Literal

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
    URL,
    WRONG_KEY,
    names_red,
    refused,
    run,
)
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel, Field

API = sys.argv[1]


def model(name: str = MODEL, key: str = KEY) -> Any:
    if API == "anthropic":
        return ChatAnthropic(model=name, base_url=URL, api_key=key, temperature=0, max_retries=0, max_tokens=100)
    return ChatOpenAI(
        model=name,
        base_url=BASE_URL,
        api_key=key,
        temperature=0,
        max_retries=0,
        use_responses_api=API == "responses",
    )


@tool
def get_weather(city: Annotated[str, Field(max_length=20)]) -> str:
    """The weather in a city."""
    return f"{city}: {REPORT}"


class Colour(BaseModel):
    """A colour."""

    name: Literal["red", "green", "blue"]


def chat() -> None:
    answer = model().invoke(HELLO)
    assert answer.text
    assert answer.usage_metadata["output_tokens"] > 0


def stream() -> None:
    assert len([chunk for chunk in model().stream(HELLO) if chunk.text]) > 1


def tools() -> None:
    human = HumanMessage(HELLO)
    called = model().bind_tools([get_weather], tool_choice="get_weather").invoke([human])
    (call,) = called.tool_calls
    answer = model().invoke([human, called, ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"])])
    assert answer.text


def schema() -> None:
    for method in ("json_schema", "function_calling"):
        assert isinstance(model().with_structured_output(Colour, method=method).invoke(HELLO), Colour)


def picture() -> None:
    parts = [{"type": "text", "text": ABOUT_PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE_URL}}]
    names_red(model().invoke([HumanMessage(parts)]).text)


def embeddings() -> None:
    # It counts tokens with OpenAI's tokenizer unless told otherwise.
    made = OpenAIEmbeddings(model=EMBEDDER, base_url=BASE_URL, api_key=KEY, check_embedding_ctx_length=False)
    assert len(made.embed_documents([HELLO, REPORT])) == 2


def unknown_model() -> None:
    with refused("NotFound", NO_MODEL):
        model(NO_MODEL).invoke(HELLO)


def wrong_key() -> None:
    with refused("Authentication"):
        model(key=WRONG_KEY).invoke(HELLO)


run(
    chat=chat,
    stream=stream,
    tools=tools,
    schema=schema,
    picture=picture,
    unknown_model=unknown_model,
    wrong_key=wrong_key,
    **({"embeddings": embeddings} if API == "openai" else {}),
)
