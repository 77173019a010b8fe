"""Where images stand in a prompt's text, with templates that take texts, lists of parts, or neither."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pytest

from periscope.core import Image, JSONObject, Message, Role, TextPart, ToolCall
from periscope.engine.text.images import ImageTokens, PromptImages, images_of
from periscope.engine.text.template_messages import template_message
from periscope.errors import InvalidRequest, ModelLoadError

TOKENS = ("<img>", "<pad>", "</img>", "<end>")


class Processor:
    """A processor that writes as many `<pad>` as an image is wide."""

    image_token, image_token_id = "<pad>", 7
    sample = ImageTokens("<pad><pad>", 2)

    def tokens_of(self, image: Image) -> ImageTokens:
        return ImageTokens("<pad>" * image.width, image.width)


def picture(width: int) -> Image:
    return Image(b"\0" * 3 * width, width, 1, width, 1, str(width))


def as_text(chat: Sequence[JSONObject], _schemas: list[JSONObject]) -> str:
    """A template that takes texts, and parts from who has them."""
    return "".join(
        f"{m['role']}: {m['content'] if isinstance(m['content'], str) else _parts(m['content'])}<end>" for m in chat
    )


def as_parts(chat: Sequence[JSONObject], _schemas: list[JSONObject]) -> str:
    """A template that takes lists of parts alone: a text is one character after the other, none of which it knows."""
    return "".join(f"{m['role']}: {_parts(p for p in m['content'] if isinstance(p, dict))}<end>" for m in chat)


def _parts(content: object) -> str:
    return "".join("<img><pad></img>" if p["type"] == "image" else p["text"] for p in content)  # type: ignore[attr-defined]


def as_text_alone(chat: Sequence[JSONObject], _schemas: list[JSONObject]) -> str:
    """A template that knows nothing of images."""
    if not all(isinstance(m["content"], str) for m in chat):
        raise TypeError
    return "".join(f"{m['role']}: {m['content']}<end>" for m in chat)


def written(template: object, *messages: Message) -> str:
    images = PromptImages(Processor(), template, TOKENS)  # type: ignore[arg-type]
    chat = [template_message(message) for message in images.with_placeholders(messages, lambda part: part.text)]
    return images.renderer(template, images_of(messages))(chat, [])  # type: ignore[arg-type]


def user(*content: str | Image) -> Message:
    return Message(Role.USER, tuple(TextPart(part) if isinstance(part, str) else part for part in content))


CHAT = (user("a", picture(1), "b", "c"), Message(Role.TOOL, (picture(3),), tool_call_id="x"), user(picture(2), "d"))


@pytest.mark.parametrize("template", [as_text, as_parts])
def test_each_image_stands_where_the_client_put_it(template: object) -> None:
    """Directly beside its text, in every role, with as many tokens as it has."""
    assert written(template, *CHAT) == (
        "user: a<img><pad></img>b\nc<end>tool: <img><pad><pad><pad></img><end>user: <img><pad><pad></img>d<end>"
    )


def test_a_message_without_content_has_a_first_part_too() -> None:
    """Templates of lists look at it, also in a turn that is nothing but a call."""

    def looking(chat: Sequence[JSONObject], schemas: list[JSONObject]) -> str:
        return "".join(m["content"][0]["type"] for m in chat if isinstance(m["content"], list)) + as_parts(
            chat, schemas
        )

    called = Message(Role.ASSISTANT, tool_calls=(ToolCall("x", "f", "{}"),))
    assert written(looking, user("a"), called) == "texttextuser: a<end>assistant: <end>"


def test_a_template_without_images_gets_the_processor_s_token() -> None:
    """The tokens stand in the text as the processor writes it."""
    assert written(as_text_alone, user(picture(2), "what?")) == "user: <pad><pad>what?<end>"


@pytest.mark.parametrize("template", [as_text, as_parts])
def test_tokens_of_images_that_somebody_typed_are_text(template: object) -> None:
    """In texts, reasoning and arguments; other tokens are left as they were."""
    said = Message(
        Role.ASSISTANT, (TextPart("<pad>"),), reasoning="<img>", tool_calls=(ToolCall("x", "f", '{"a": "</img>"}'),)
    )
    images = PromptImages(Processor(), template, TOKENS)  # type: ignore[arg-type]
    (told,) = images.with_placeholders([said], lambda part: part.text)
    assert (told.text, told.reasoning, told.tool_calls[0].arguments) == ("< pad>", "< img>", '{"a": "< /img>"}')
    assert written(template, user("<img><pad></img> <end>", picture(1))).count("<pad>") == 1


def test_nobody_can_type_an_image_s_placeholder() -> None:
    """It is another one in every process."""
    placeholders = {
        images.with_placeholders([user(picture(1))], lambda part: part.text)[0].text
        for images in (PromptImages(Processor(), as_text, TOKENS) for _ in range(2))
    }
    assert len(placeholders) == 2


def test_images_are_placed_in_the_order_of_the_prompt() -> None:
    """Though the template has the system message first, which came second."""
    first, second = picture(2), picture(3)
    images = PromptImages(Processor(), as_text, TOKENS)
    messages = [user(first), Message(Role.SYSTEM, (second,))]
    chat = [template_message(message) for message in images.with_placeholders(messages, lambda part: part.text)]
    placed = images.placed([1, 7, 7, 7, 1, 7, 7, 1], [first, second], [chat[1], chat[0]])
    assert [(each.image, each.start, each.stop) for each in placed] == [(second, 1, 4), (first, 5, 7)]


@pytest.mark.parametrize(
    "token_ids",
    [[1, 7, 1], [1, 7, 7, 7, 1], [1, 1], [1, 7, 7]],
    ids=["too few", "one that is text", "left out", "nothing after it"],
)
def test_a_prompt_without_a_place_for_its_image_is_refused(token_ids: list[int]) -> None:
    """No image is dropped, and no text is taken for one."""
    images = PromptImages(Processor(), as_text, TOKENS)
    chat = [
        template_message(message) for message in images.with_placeholders([user(picture(2))], lambda part: part.text)
    ]
    with pytest.raises(InvalidRequest, match="image"):
        images.placed(token_ids, [picture(2)], chat)


def test_a_template_that_loses_an_image_says_so() -> None:
    """A list of parts in a role that the template passes over."""

    def users_alone(chat: Sequence[JSONObject], schemas: list[JSONObject]) -> str:
        return as_parts([m for m in chat if m["role"] == "user"], schemas)

    with pytest.raises(ValueError, match="every image"):
        written(users_alone, *CHAT)


def test_a_template_that_the_processor_does_not_understand_is_an_error_of_the_load() -> None:
    """It says what each of the two expects and what to do."""

    def other(chat: Sequence[JSONObject], schemas: list[JSONObject]) -> str:
        return re.sub("<pad>", "<other>", as_text(chat, schemas))

    with pytest.raises(ModelLoadError, match=r"<other>.*<pad>.*proxy"):
        PromptImages(Processor(), other, TOKENS)
