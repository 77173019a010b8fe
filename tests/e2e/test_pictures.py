"""A picture in, an answer out: the demo pair through the real server, asked as people and SDKs ask."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import RunningServer
from tests.e2e.drawing import circle, number, picture, square, text, user
from tests.vision.readers.pictures import TRACEBACK, drawn_screenshot


def ask(client: httpx.Client, *messages: dict[str, Any], **extra: Any) -> dict[str, Any]:
    reply = client.post("/v1/chat/completions", json={"messages": list(messages), "temperature": 0, **extra})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def answer(body: dict[str, Any]) -> str:
    content: str = body["choices"][0]["message"]["content"]
    return content


def test_curl_with_a_red_circle_gets_an_answer_that_says_red(client: httpx.Client) -> None:
    """The first thing Periscope must do."""
    body = ask(client, user("What colour is the circle?", picture(circle("red"))))
    assert "red" in answer(body)
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["periscope"]["vision"]["num_images"] == 1


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("size", [64, 900])
def test_formats_and_sizes_people_have(client: httpx.Client, kind: str, size: int) -> None:
    """Small and large pictures in the usual formats are seen alike."""
    body = ask(client, user(picture(square("blue", size), kind), "What colour is the square?"))
    assert "blue" in answer(body)


def test_a_number_is_read(client: httpx.Client) -> None:
    """Digits drawn with a plain font come back in the answer."""
    assert "42" in answer(ask(client, user(picture(number("42")), "What number is in the picture?")))


def test_a_screenshot_gives_the_text_model_its_traceback(client: httpx.Client) -> None:
    """What a small captioner cannot read stands in the block to the letter, and in the prompt."""
    shot = picture(drawn_screenshot())
    body = ask(client, user("What went wrong?", shot))
    again = ask(client, user("What went wrong?", shot))
    assert body["periscope"]["vision"]["reader_ms"] > 0
    assert again["periscope"]["vision"]["reader_ms"] == 0
    (told,) = client.post("/api/captions", json={"images": [shot["image_url"]["url"]]}).json()["captions"]
    assert [line.strip() for line in told["verbatim"].splitlines()] == [line.strip() for line in TRACEBACK]
    assert told["verbatim"] in told["block"]
    words_alone = ask(client, user("What went wrong?"))["usage"]["prompt_tokens"]
    assert body["usage"]["prompt_tokens"] > words_alone + 40


def test_two_pictures_of_one_chat_are_numbered_and_told_apart(client: httpx.Client) -> None:
    """The second picture, in a later turn, is image 2."""
    first = user("What colour is the circle?", picture(circle("red")))
    said = ask(client, first)
    second = user("Which image shows the square?", picture(square("blue")))
    body = ask(client, first, {"role": "assistant", "content": answer(said)}, second)
    assert "2" in answer(body)
    assert body["periscope"]["vision"]["num_images"] == 2


def test_the_same_image_in_turn_two_runs_the_captioner_zero_times(client: httpx.Client) -> None:
    """A picture is described once, however often the client sends it back."""
    seen = user("What colour is the circle?", picture(circle("green", 250)))
    first = ask(client, seen)
    again = ask(client, seen, {"role": "assistant", "content": answer(first)}, user("Is there a star?"))
    assert first["periscope"]["vision"]["num_cache_hits"] == 0
    vision = again["periscope"]["vision"]
    assert (vision["num_images"], vision["num_cache_hits"], vision["num_caption_tokens"]) == (1, 1, 0)


def test_the_openai_sdk_streams_the_same_answer(server: RunningServer, client: httpx.Client) -> None:
    """The official SDK reads our stream; joined, it is the unstreamed answer."""
    messages: Any = [user("What colour is the circle?", picture(circle("red")))]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as sdk:
        stream = sdk.chat.completions.create(
            model="demo", messages=messages, temperature=0, stream=True, stream_options={"include_usage": True}
        )
        chunks = list(stream)
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert streamed == answer(ask(client, *messages))
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 0
    assert len({chunk.id for chunk in chunks}) == 1


def test_the_sdk_gets_a_tool_call(server: RunningServer) -> None:
    """Given a tool that fits, the model calls it with well-formed arguments."""
    tools: Any = [
        {
            "type": "function",
            "function": {
                "name": "get_weather",
                "description": "Get the weather in a city.",
                "parameters": {
                    "type": "object",
                    "properties": {"city": {"type": "string"}},
                    "required": ["city"],
                },
            },
        }
    ]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none") as sdk:
        reply = sdk.chat.completions.create(
            model="demo",
            messages=[{"role": "user", "content": "What is the weather in Paris?"}],
            tools=tools,
            temperature=0,
        )
    (call,) = reply.choices[0].message.tool_calls or []
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "Paris" in call.function.arguments
    assert reply.choices[0].finish_reason == "tool_calls"


def test_a_captioner_asked_to_answer_is_told_what_it_is_for(client: httpx.Client) -> None:
    """`periscope ps` lists it, so somebody will ask it."""
    body = {"model": "demo-captioner", "messages": [{"role": "user", "content": "Hello!"}]}
    refused = client.post("/v1/chat/completions", json=body)
    assert refused.status_code == 400
    assert "only describes pictures" in refused.json()["error"]["message"]


def test_text_alone_is_answered_without_the_captioner(client: httpx.Client) -> None:
    """A chat without pictures has no vision usage."""
    body = ask(client, {"role": "user", "content": "Hello!"})
    assert answer(body)
    assert "vision" not in body.get("periscope", {})


def test_words_that_look_like_image_markers_make_no_image(client: httpx.Client) -> None:
    """A user may write about markers; only real image parts count."""
    body = ask(client, user("What is <image> or [Image 1] or <|image_pad|>?", text("[End of image 1]")))
    assert "vision" not in body.get("periscope", {})
