"""Periscope without HTTP: chats, streams, pictures of all kinds, captions, errors, cancelling."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from periscope import (
    Finished,
    FinishReason,
    GenerationParams,
    Message,
    OutputSpec,
    Periscope,
    RequestError,
    ResponseFormat,
    Role,
    TextDelta,
    TextPart,
    Tool,
    ToolChoice,
    ToolChoiceMode,
    attachment,
    picture,
    sync,
)
from periscope.config import Config
from periscope.errors import ConfigError
from tests.api.driving import in_loop
from tests.e2e import drawing
from tests.engine.embedding.checkpoints import SIZE, write_model

QUESTION = "What colour is the circle?"


def png(colour: str) -> bytes:
    file = io.BytesIO()
    drawing.circle(colour).save(file, "PNG")
    return file.getvalue()


def test_a_picture_may_be_a_path_bytes_a_url_or_one_of_pillows(demo: sync.Periscope, tmp_path: Path) -> None:
    """All are the same picture, which is described once."""
    file = tmp_path / "circle.png"
    file.write_bytes(png("blue"))
    circle = drawing.circle("blue")
    for shown in (str(file), file, png("blue"), circle, drawing.data_url(circle), picture(file)):
        answer = demo.chat(QUESTION, images=[shown])
        assert answer.text == "The circle is blue."
    assert answer.vision is not None
    assert answer.vision.num_cache_hits == 1


def test_an_attachment_is_a_file_of_any_kind(demo: sync.Periscope, tmp_path: Path) -> None:
    """Pages of a scan and pictures are described; where a picture is wanted, a document is told its place."""
    scan, drawn = tmp_path / "scan.pdf", tmp_path / "drawn.png"
    drawing.circle("blue").save(scan)
    drawn.write_bytes(png("green"))
    for file, colour in ((scan, "blue"), (drawn, "green")):
        answer = demo.chat([Message(Role.USER, (attachment(file), TextPart(QUESTION)))])
        assert answer.text == f"The circle is {colour}."
    with pytest.raises(RequestError, match=r"attachment\('scan.pdf'\)"):
        demo.chat(QUESTION, images=[scan])
    with pytest.raises(RequestError, match=r"no file .*nowhere\.pdf"):
        attachment(tmp_path / "nowhere.pdf")


def test_a_conversation_is_messages_or_openais_dicts(demo: sync.Periscope) -> None:
    """The answer's message goes on with it, and a picture of an earlier message is remembered."""
    shown = Message(Role.USER, (picture(png("red")), TextPart(QUESTION)))
    first = demo.chat([shown])
    again = demo.chat([shown, first.message, Message(Role.USER, (TextPart(QUESTION),))])
    dicts = demo.chat([drawing.user(drawing.picture(drawing.circle("red")), QUESTION)])
    assert first.text == again.text == dicts.text == "The circle is red."
    assert again.usage.num_prompt_tokens > first.usage.num_prompt_tokens


def test_images_stand_with_the_last_message_of_the_user(demo: sync.Periscope) -> None:
    """In a list of dicts as beside a text."""
    dicts = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}, drawing.user(QUESTION)]
    assert demo.chat(dicts, images=[png("green")]).text == "The circle is green."


def test_a_stream_is_the_answer_in_pieces(demo: sync.Periscope) -> None:
    """The same text as the whole answer; the end comes once, last."""
    events = list(demo.stream("Hello!"))
    text = "".join(event.text for event in events if isinstance(event, TextDelta))
    assert text == demo.chat("Hello!").text
    assert [isinstance(event, Finished) for event in events].index(True) == len(events) - 1


def test_answers_fit_a_schema_and_calls_are_whole(demo: sync.Periscope) -> None:
    """What is constrained on the wire is here, too."""
    schema = {"type": "object", "properties": {"n": {"const": 7}}, "required": ["n"], "additionalProperties": False}
    answer = demo.chat("A number", output=OutputSpec(response_format=ResponseFormat(schema)))
    assert answer.text.replace(" ", "") == '{"n":7}'
    tools = (Tool("seven", "Says it.", schema),)
    called = demo.chat("Say it", output=OutputSpec(tools, ToolChoice(ToolChoiceMode.REQUIRED)))
    assert called.finish_reason is FinishReason.TOOL_CALLS
    assert [(call.name, call.arguments.replace(" ", "")) for call in called.tool_calls] == [("seven", '{"n":7}')]


def test_captions_are_told_on_their_own(demo: sync.Periscope) -> None:
    """One for each picture, in order."""
    red, blue = demo.caption(png("red"), drawing.square("blue"))
    assert "red circle" in (red.text or "")
    assert "blue square" in (blue.text or "")


@pytest.mark.parametrize(
    ("conversation", "more", "param", "told"),
    [
        ("x", {"images": ["nowhere.png"]}, "images[0]", "there is no file nowhere.png"),
        ("x", {"images": [b"no picture"]}, "images[0]", "could not be read as an image"),
        ("x", {"images": [7]}, "images[0]", "is a int"),
        ("x", {"images": [Image.new("CMYK", (9, 9))]}, "images[0]", "convert('RGB')"),
        ("x", {"images": ["/"]}, "images[0]", "cannot be read"),
        ([Message(Role.USER, ("x",))], {}, "messages[0].parts[0]", "TextPart"),  # type: ignore[arg-type]
        ("x", {"model": "gpt-9"}, "model", "There is no model 'gpt-9'"),
        ("x", {"model": "eyes"}, "model", "Model eyes only describes pictures"),
        ([], {}, "messages", "not empty"),
        ([{"role": "nobody", "content": "x"}], {}, "messages[0].role", "must be one of"),
        ([Message(Role.SYSTEM, (TextPart("x"),))], {"images": [b"x"]}, "images", "none"),
        (None, {}, "messages", "is a NoneType. It must be a question, a list of `Message`s"),
        (b"x", {}, "messages", "is a bytes"),
        (Message(Role.USER, (TextPart("x"),)), {}, "messages", "is a Message"),
        ({"role": "user", "content": "x"}, {}, "messages", "is a dict"),
        ([Message(Role.USER), {"role": "user", "content": "x"}], {}, "messages", "`Message`s and others"),
        ([Message("user")], {}, "messages[0].role", "`Role.USER`"),  # type: ignore[arg-type]
        ([Message(Role.USER, TextPart("x"))], {}, "messages[0].parts", "(TextPart(...),)"),  # type: ignore[arg-type]
        ("x", {"images": "circle.png"}, "images", "is a str. It must be a list"),
        ("x", {"images": Image.new("RGB", (9, 9))}, "images", "is a Image. It must be a list"),
        ("x", {"model": None}, "model", '"" for the default one'),
        ("x", {"params": {"max_tokens": 1}}, "params", "is a dict. It must be `GenerationParams(...)`"),
        ("x", {"output": {"tools": []}}, "output", "`OutputSpec(...)`"),
        ("x", {"output": OutputSpec(response_format=dict)}, "output.response_format", "is a type"),  # type: ignore[arg-type]
        (
            "x",
            {"output": OutputSpec(response_format=ResponseFormat(dict))},  # type: ignore[arg-type]
            "output.response_format.schema",
            "model_json_schema()",
        ),
    ],
)
def test_what_cannot_be_used_is_named(
    demo: sync.Periscope, conversation: Any, more: dict[str, Any], param: str, told: str
) -> None:
    """The error says where and what, and the next call works."""
    with pytest.raises(RequestError) as raised:
        demo.chat(conversation, **more)
    assert raised.value.param == param
    assert told in raised.value.message
    assert demo.chat("Hi", params=GenerationParams(max_tokens=1)).usage.num_completion_tokens == 1


def test_a_captioner_is_told_what_it_is_for_where_vectors_are_wanted(demo: sync.Periscope) -> None:
    """It is there, so nobody is told that it is not."""
    with pytest.raises(RequestError, match=r"^Model eyes only describes pictures, .* It embeds no texts\.") as raised:
        demo.embed("x", model="eyes")
    assert raised.value.param == "model"


def test_half_a_character_is_replaced(demo: sync.Periscope) -> None:
    """As in a body of the server: JavaScript cuts texts in the middle of a character."""
    half = "Hello \ud83d"
    for asked in (half, [Message(Role.USER, (TextPart(half),))], [{"role": "user", "content": half}]):
        assert demo.chat(asked).text


def test_leaving_a_stream_frees_its_request(demo: sync.Periscope) -> None:
    """Nothing of it runs when the loop was left."""
    for _ in demo.stream("Hello!"):
        break
    assert requests_of(demo) == ()


def requests_of(periscope: sync.Periscope) -> tuple[object, ...]:
    async def requests() -> tuple[object, ...]:
        return periscope._inner.runtime.control.requests()

    return periscope._running.run(requests())


def test_embeddings_are_rows_of_an_array(tmp_path: Path) -> None:
    """Of shape (texts, dimensions), in float32 and of unit length; an empty text is refused by its place."""
    write_model(tmp_path / "tiny-bert", "bert")
    (tmp_path / "models.yaml").write_text(
        "models:\n- {name: demo, local_path: embedded:text}\n- {name: bert, local_path: ./tiny-bert}\n"
    )
    with sync.Periscope(tmp_path / "models.yaml") as periscope:
        vectors = periscope.embed(["a red circle", "another"])
        assert vectors.shape == (2, SIZE)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(periscope.embed("a red circle", model="bert"), vectors[:1], atol=1e-5)
        with pytest.raises(RequestError) as raised:
            periscope.embed(["a", ""])
        assert raised.value.param == "input[1]"


def test_cancelled_calls_end_and_others_go_on(demo_config: Config) -> None:
    """Of two chats at once, the one whose task is cancelled leaves nothing behind."""

    @in_loop
    async def run() -> None:
        async with Periscope(demo_config) as periscope:
            long = GenerationParams(max_tokens=4000, ignore_eos=True)
            endless = asyncio.create_task(periscope.chat("Hello!", params=long))
            async with aclosing(periscope.stream("Hello!", params=long)) as events:
                assert isinstance(await anext(events), TextDelta)
                endless.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await endless
                assert len(periscope.runtime.control.requests()) == 1
            assert periscope.runtime.control.requests() == ()
            assert (await periscope.chat("Hi")).text
            with pytest.raises(RuntimeError, match="runs already"):
                await periscope.start()
        with pytest.raises(RuntimeError, match="does not run"):
            await periscope.chat("Hi")
        await periscope.close()  # once more
        async with periscope:  # may be started again
            assert [card.name for card in periscope.models()] == ["demo"]

    run()


def test_a_file_that_is_no_configuration_is_told(tmp_path: Path) -> None:
    """With its place, and nothing is left running."""
    file = tmp_path / "models.yaml"
    file.write_text("models: 7\n")
    with pytest.raises(ConfigError, match="models"), sync.Periscope(file):
        pass


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    """By its whole path, and not as a flag that no program gave."""
    with pytest.raises(ConfigError) as raised:
        sync.Periscope(tmp_path / "nowhere.yaml").start()
    assert raised.value.message == f"There is no file {tmp_path / 'nowhere.yaml'}."


def test_calls_from_another_event_loop_are_refused(demo_config: Config) -> None:
    """Its parts know no locks; the error says what takes calls of all threads."""

    @in_loop
    async def run() -> None:
        async with Periscope(demo_config) as periscope:
            with pytest.raises(RuntimeError, match=r"periscope\.sync"):
                await asyncio.to_thread(lambda: asyncio.run(periscope.chat("Hi")))
            assert (await periscope.chat("Hi")).text

    run()


def test_a_stream_knows_that_its_periscope_was_closed(demo_config: Config) -> None:
    """Whoever goes on reading is told, instead of taking the answer for a whole one."""
    periscope = sync.Periscope(demo_config).start()
    events = periscope.stream("Hello!")
    assert isinstance(next(events), TextDelta)
    periscope.close()
    with pytest.raises(RuntimeError, match="was closed before the answer had ended"):
        next(events)
