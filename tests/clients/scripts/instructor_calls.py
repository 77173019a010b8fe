"""instructor over OpenAI's SDK: every answer is an object, by a forced tool or by a JSON schema."""

from typing import Any, Literal

import instructor
import openai
from checks import ABOUT_PICTURE, BASE_URL, HELLO, KEY, MODEL, NO_MODEL, PICTURE_URL, WRONG_KEY, refused, run
from pydantic import BaseModel


class Colour(BaseModel):
    name: Literal["red", "green", "blue"]


def client(mode: Any = instructor.Mode.JSON_SCHEMA, key: str = KEY) -> Any:
    return instructor.from_openai(openai.OpenAI(base_url=BASE_URL, api_key=key, max_retries=0), mode=mode)


def ask(of: Any, model: str = MODEL) -> Any:
    messages = [{"role": "user", "content": HELLO}]
    return of.chat.completions.create(model=model, messages=messages, response_model=Colour, max_retries=0)


def stream() -> None:
    pieces = client().chat.completions.create_partial(
        model=MODEL, messages=[{"role": "user", "content": HELLO}], response_model=Colour
    )
    assert list(pieces)[-1].name in {"red", "green", "blue"}


def tools() -> None:
    for mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        assert isinstance(ask(client(mode)), Colour)


def schema() -> None:
    assert isinstance(ask(client()), Colour)


def picture() -> None:
    """The picture arrives. What colour the tiny model writes into an object is another matter."""
    parts = [{"type": "text", "text": ABOUT_PICTURE}, {"type": "image_url", "image_url": {"url": PICTURE_URL}}]
    _, completion = client().chat.completions.create_with_completion(
        model=MODEL, messages=[{"role": "user", "content": parts}], response_model=Colour, max_retries=0
    )
    assert completion.periscope["vision"]["num_images"] == 1


def unknown_model() -> None:
    with refused(NO_MODEL):
        ask(client(), model=NO_MODEL)


def wrong_key() -> None:
    with refused("API key"):
        ask(client(key=WRONG_KEY))


run(stream=stream, tools=tools, schema=schema, picture=picture, unknown_model=unknown_model, wrong_key=wrong_key)
