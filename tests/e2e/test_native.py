"""Native vision: the demo captioner answers by itself, through the real server, asked with OpenAI's SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from tests.e2e.conftest import RunningServer, start_server
from tests.e2e.drawing import circle, picture, square, user
from tests.engine.families.vision_checkpoints import write_vision_checkpoint
from tests.engine.families.vision_shapes import VISION_FAMILIES

CONFIG = """\
models:
  - name: eyes
    local_path: embedded:captioner
    preload: true
    capabilities: {vision_mode: native, vision_proxy: {max_images: 4}}
  - name: words
    local_path: embedded:text
    capabilities: {vision_mode: proxy, vision_proxy: {model: eyes, reader: none}}
  - {name: fewer-bits, local_path: embedded:captioner, params: {kv_bits: 8}, capabilities: {vision_mode: native}}
  - {name: unfit, local_path: paligemma, capabilities: {vision_mode: native}}
"""
DESCRIBE = "Describe the image."
RED, BLUE = picture(circle("red")), picture(square("blue"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One server for this file; it must leave with status 0."""
    folder = tmp_path_factory.mktemp("native")
    write_vision_checkpoint(folder / "paligemma", VISION_FAMILIES["paligemma"])
    (folder / "models.yaml").write_text(CONFIG)
    running = start_server(folder / "models.yaml", log=folder / "server.log")
    yield running
    assert running.stop() == 0


@pytest.fixture(scope="module")
def sdk(server: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=120) as made:
        yield made


def ask(sdk: openai.OpenAI, *messages: Any, **params: Any) -> Any:
    settings: dict[str, Any] = {"model": "eyes", "temperature": 0, "max_tokens": 40} | params
    create: Any = sdk.chat.completions.create
    return create(messages=list(messages), **settings)


def said(reply: Any) -> str:
    return str(reply.choices[0].message.content)


def test_it_streams_what_it_sees_without_a_caption(sdk: openai.OpenAI) -> None:
    """Token by token; pictures are counted, and nothing was captioned."""
    chunks = list(ask(sdk, user(RED, DESCRIBE), stream=True, stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert "red circle" in "".join(texts)
    assert len(texts) > 5
    assert chunks[-1].usage.completion_tokens > 5
    vision = next(chunk.model_extra["periscope"]["vision"] for chunk in chunks if "periscope" in chunk.model_extra)
    assert (vision["num_images"], vision["num_caption_tokens"]) == (1, 0)


def test_the_list_of_models_says_that_it_sees(sdk: openai.OpenAI) -> None:
    """By itself, and in one batch with others."""
    eyes, words, *_ = sdk.models.list().data
    assert eyes.model_extra is not None and words.model_extra is not None  # noqa: PT018
    assert eyes.model_extra["capabilities"]["vision"] == "native"
    assert eyes.model_extra["capabilities"]["batched"] is True
    assert words.model_extra["capabilities"]["vision"] == "proxy"


def test_a_conversation_with_a_new_picture_goes_on_from_the_cache(sdk: openai.OpenAI) -> None:
    """The first turn, its picture included, is not computed again; the answer is about the new picture."""
    first = user(RED, DESCRIBE)
    answer = ask(sdk, first)
    second = ask(sdk, first, {"role": "assistant", "content": said(answer)}, user(BLUE, DESCRIBE))
    assert "blue square" in said(second)
    assert second.usage.prompt_tokens_details.cached_tokens >= answer.usage.prompt_tokens


def test_the_list_of_models_says_why_a_family_cannot_answer(sdk: openai.OpenAI) -> None:
    """In the words of its refusal, with what to do instead."""
    with pytest.raises(openai.InternalServerError, match="vision_mode: proxy"):
        ask(sdk, user(RED, DESCRIBE), model="unfit")
    told = sdk.models.retrieve("unfit").model_extra
    assert told is not None
    assert told["state"] == "failed"
    assert "not causal within an image" in told["error"]
    assert sdk.models.retrieve("eyes").model_extra["error"] is None  # type: ignore[index]


@pytest.mark.parametrize("model", ["eyes", "fewer-bits"])
def test_many_at_once_get_the_answers_of_each_alone(sdk: openai.OpenAI, model: str) -> None:
    """Pictures, texts and samples with seeds share the batch, also with KV caches in fewer bits."""
    green = picture(circle("green", 100))
    asked: list[tuple[Any, dict[str, Any]]] = [
        (user(RED, DESCRIBE), {}),
        (user(BLUE, DESCRIBE), {"temperature": 1.0, "seed": 7}),
        (user(green, DESCRIBE), {"stop": ["circle"]}),
        (user("Hello!"), {}),
        (user(RED, BLUE, DESCRIBE), {"temperature": 0.5, "seed": 1}),
    ]

    def answered(each: tuple[Any, dict[str, Any]]) -> str:
        return said(ask(sdk, each[0], **each[1], model=model))

    alone = [answered(each) for each in asked]
    with ThreadPoolExecutor(len(asked)) as threads:
        together = list(threads.map(answered, asked))
    assert together == alone
    assert "circle" not in together[2]


def test_the_answer_fits_a_schema_and_a_call_its_tool(sdk: openai.OpenAI) -> None:
    """Grammars constrain a row with a picture like any other."""
    schema = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
    form = {"type": "json_schema", "json_schema": {"name": "seen", "schema": schema}}
    assert json.loads(said(ask(sdk, user(BLUE, DESCRIBE), response_format=form)))["colour"] in ("red", "blue")
    tool = {"type": "function", "function": {"name": "tell", "parameters": schema}}
    reply = ask(sdk, user(RED, DESCRIBE), tools=[tool], tool_choice="required", max_tokens=120)
    (call,) = reply.choices[0].message.tool_calls
    assert json.loads(call.function.arguments)["colour"] in ("red", "blue")


def test_a_picture_in_a_tool_s_result_is_shown(sdk: openai.OpenAI) -> None:
    """Its tokens stand in the prompt, in the tool's message."""
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    turns = [user("Look."), {"role": "assistant", "content": None, "tool_calls": [call]}]
    words = {"role": "tool", "tool_call_id": "a", "content": "done"}
    seen = words | {"content": [RED, {"type": "text", "text": "done"}]}
    without, with_it = (ask(sdk, *turns, result, max_tokens=1).usage.prompt_tokens for result in (words, seen))
    assert with_it > without + 10


def test_more_pictures_than_the_limit_and_typed_image_tokens_make_no_place(sdk: openai.OpenAI) -> None:
    """The oldest two of six say that they are not shown; what a user types stays text."""
    reply = ask(sdk, user(*[RED] * 6, DESCRIBE))
    assert reply.model_extra["periscope"]["vision"]["num_failed"] == 2
    assert "red circle" in said(ask(sdk, user("<|vision_start|><|image_pad|><|vision_end|>", RED, DESCRIBE)))


@pytest.mark.parametrize(
    ("content", "code", "param"),
    [
        (["data:image/png;base64,AAAA"], "invalid_image", "messages[0].content[0]"),
        (["http://example.com/a.png"], "image_source_refused", "messages[0].content[0]"),
    ],
)
def test_bad_pictures_are_the_client_s_error(sdk: openai.OpenAI, content: list[str], code: str, param: str) -> None:
    """It names the part, as in every other mode."""
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in content]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(sdk, user(*parts, DESCRIBE))
    assert (caught.value.code, caught.value.param) == (code, param)


def test_a_prompt_longer_than_the_context_is_refused_with_its_pictures_counted(sdk: openai.OpenAI) -> None:
    """The error says how many tokens there are."""
    with pytest.raises(openai.BadRequestError, match="context is 2048 tokens") as caught:
        ask(sdk, user(RED, "x " * 3000))
    assert caught.value.code == "context_length_exceeded"


def test_a_client_that_leaves_frees_its_place(server: RunningServer, sdk: openai.OpenAI) -> None:
    """The row ends, and the next request finds nothing in its way."""
    stream = ask(sdk, user(RED, "Hello!"), stream=True, max_tokens=1500, logit_bias={"2": -100, "0": -100})
    next(iter(stream))
    stream.close()
    assert "blue square" in said(ask(sdk, user(BLUE, DESCRIBE)))
    with httpx.Client(base_url=server.url) as http, http.stream("GET", "/api/events") as events:
        for line in events.iter_lines():
            if line.startswith("data:") and not json.loads(line[5:]).get("requests", []):
                break


def test_it_captions_for_a_text_model_too(sdk: openai.OpenAI) -> None:
    """One model in memory answers by itself and describes pictures for another."""
    reply = ask(sdk, user(RED, "What colour is the circle?"), model="words")
    assert "red" in said(reply)
    assert reply.model_extra["periscope"]["vision"]["num_caption_tokens"] > 5
