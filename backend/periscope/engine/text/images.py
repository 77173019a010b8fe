"""Images in a chat's text: which tokens stand for each, and where. Knows texts and token ids, no pixels."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from periscope.core import Image, JSONObject, Message, TextPart
from periscope.engine.text.message_rewrites import Messages
from periscope.errors import InvalidRequest, ModelLoadError

_Render: TypeAlias = Callable[[Messages, list[JSONObject]], str]
#: Words of the probe that shows where a template writes an image. No template has them.
_BEFORE, _AFTER = "Periscopebefore", "Periscopeafter"


@dataclass(frozen=True, slots=True)
class ImageTokens:
    """The tokens that a model's processor writes in place of one image.

    Attributes:
        text: the image's tokens, and those around and between them that belong to the image.
        num_tokens: how many image tokens `text` has.
        grid: patches in time, height and width, for models whose positions depend on them; empty for others.
    """

    text: str
    num_tokens: int
    grid: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class PlacedImage:
    """An image in a prompt. Its tokens, `start` to `stop`, are replaced by its embeddings.

    Attributes:
        start, stop: from the first image token to after the last, tokens between the image's tiles included.
        grid: as in `ImageTokens`.
    """

    image: Image
    start: int
    stop: int
    grid: tuple[int, ...] = ()


class ImageTokenizer(Protocol):
    """What is known of a model's processor without its pixels."""

    @property
    def image_token(self) -> str:
        """What the processor replaces by an image's tokens."""
        ...

    @property
    def image_token_id(self) -> int:
        """The id of an image token."""
        ...

    @property
    def sample(self) -> ImageTokens:
        """The tokens of some image."""
        ...

    def tokens_of(self, image: Image) -> ImageTokens:
        """The tokens of this image. May block for as long as preprocessing takes."""
        ...


class PromptImages:
    """Owns how images get into the text of a chat. A placeholder stands for each until the template has been rendered.

    So rewrites and templates treat an image as a part of its message's text, and it stands where the client put it.
    Templates that take no text but lists of parts get those. Construction probes the template.

    Args:
        render: renders messages with the model's own template settings.
        added_tokens: tokens that the tokenizer recognises in any text.

    Attributes:
        tokens: matches the tokens that stand for or mark an image. Nobody's text may contain one.

    Raises:
        ModelLoadError: template and processor do not agree on what stands for an image.
    """

    def __init__(self, tokenizer: ImageTokenizer, render: _Render, added_tokens: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._nonce = f"image{secrets.token_hex(8)}n"  # nobody can type a placeholder
        self._placeholder = re.compile(rf"{self._nonce}(\d+)x")
        self._takes_text = _BEFORE in _rendered(render, _BEFORE)
        self._marker = _marker_of(render) or tokenizer.image_token
        if tokenizer.image_token not in self._marker:
            raise ModelLoadError(
                f"The chat template writes {self._marker!r} for an image, and the model's processor expects "
                f"{tokenizer.image_token!r}. Use `vision_mode: proxy` with this model."
            )
        around = self._marker + tokenizer.sample.text
        tokens = sorted((token for token in added_tokens if token in around), key=len, reverse=True)
        self.tokens = re.compile("|".join(map(re.escape, [*tokens, tokenizer.image_token])))

    def with_placeholders(self, messages: Sequence[Message], told: Callable[[TextPart], str]) -> list[Message]:
        """The messages with a placeholder for each image, numbered from 0, and no image tokens in their texts.

        Args:
            told: the text of a part as the template may have it.
        """
        numbers = itertools.count()
        return [
            replace(
                message,
                parts=(TextPart(self._content(message, told, numbers)),) if message.parts else (),
                reasoning=message.reasoning and broken_up(self.tokens, message.reasoning),
                tool_calls=tuple(
                    replace(call, arguments=broken_up(self.tokens, call.arguments)) for call in message.tool_calls
                ),
            )
            for message in messages
        ]

    def _content(self, message: Message, told: Callable[[TextPart], str], numbers: Iterator[int]) -> str:
        """Texts are joined with newlines, as without images; an image stands directly beside its text."""
        content, was_text = "", False
        for part in message.parts:
            if isinstance(part, Image):
                content, was_text = f"{content}{self._nonce}{next(numbers)}x", False
            elif isinstance(part, TextPart):
                text = broken_up(self.tokens, told(part))
                content, was_text = f"{content}\n{text}" if was_text else content + text, True
        return content

    def renderer(self, render: _Render, images: Sequence[Image] = ()) -> _Render:
        """A renderer that puts these images' tokens in place of their placeholders. May block for preprocessing."""
        slots = [
            self._marker.replace(self._tokenizer.image_token, self._tokenizer.tokens_of(image).text) for image in images
        ]

        def rendered(chat: Messages, schemas: list[JSONObject]) -> str:
            if self._takes_text:
                return self._placeholder.sub(lambda found: slots[int(found[1])], render(chat, schemas))
            pieces = render([self._in_parts(message) for message in chat], schemas).split(self._marker)
            numbers = self._numbers(chat)
            if len(pieces) != len(numbers) + 1:
                raise ValueError("it does not write every image")
            return "".join(map("".join, zip(pieces, [*(slots[number] for number in numbers), ""], strict=True)))

        return rendered

    def _numbers(self, chat: Messages) -> list[int]:
        """The numbers of the images in these messages, in the order in which they stand there."""
        return [int(number) for message in chat for number in self._placeholder.findall(message["content"])]

    def _in_parts(self, message: JSONObject) -> JSONObject:
        texts = self._placeholder.split(message["content"])  # text, number, text, number, ... text
        parts: list[JSONObject] = []
        for at, text in enumerate(texts):
            if at % 2:
                parts.append({"type": "image"})
            elif text:
                parts.append({"type": "text", "text": text})
        return {**message, "content": parts or [{"type": "text", "text": ""}]}

    def placed(self, token_ids: Sequence[int], images: Sequence[Image], chat: Messages) -> tuple[PlacedImage, ...]:
        """Where the images stand in a prompt.

        Args:
            chat: the messages that were rendered, with the images' placeholders.

        Raises:
            InvalidRequest: other tokens of the prompt look like an image, or the template left an image out.
        """
        if not images:
            return ()
        numbers = self._numbers(chat)
        at = np.flatnonzero(np.asarray(token_ids) == self._tokenizer.image_token_id)
        tokens = [self._tokenizer.tokens_of(images[number]) for number in numbers]
        if sorted(numbers) != list(range(len(images))) or len(at) != sum(each.num_tokens for each in tokens):
            raise InvalidRequest(
                "The chat template of this model has no place for every image, or a text contains "
                f"{self._tokenizer.image_token!r}, which stands for one. Leave it out, or send images in user turns.",
                param="messages",
            )
        if len(at) and at[-1] == len(token_ids) - 1:
            raise InvalidRequest("The prompt ends with an image: its template opens no turn.", param="messages")
        return tuple(_placed(at, [images[number] for number in numbers], tokens))


def images_of(messages: Sequence[Message]) -> list[Image]:
    """The images in these messages, in order."""
    return [part for message in messages for part in message.parts if isinstance(part, Image)]


def broken_up(tokens: re.Pattern[str], text: str) -> str:
    """Pure: the text with a space in each of these tokens, so that the tokenizer takes it for what it says."""
    return tokens.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _placed(at: np.ndarray, images: Sequence[Image], tokens: Sequence[ImageTokens]) -> Iterator[PlacedImage]:
    first = 0
    for image, each in zip(images, tokens, strict=True):
        last = first + each.num_tokens - 1
        yield PlacedImage(image, int(at[first]), int(at[last]) + 1, each.grid)
        first = last + 1


def _rendered(render: _Render, content: Any) -> str:
    """A chat of one message; empty if the template refuses it."""
    try:
        return render([{"role": "user", "content": content}], [])
    except Exception:  # noqa: BLE001 - a template is code of the model's authors
        return ""


def _marker_of(render: _Render) -> str:
    """What the template writes for an image between two texts, wherever it puts it; empty if it writes nothing."""
    before, image, after = ({"type": "text", "text": _BEFORE}, {"type": "image"}, {"type": "text", "text": _AFTER})
    without, seen = _rendered(render, [before, after]), _rendered(render, [before, image, after])
    if not all(word in text for word in (_BEFORE, _AFTER) for text in (without, seen)):
        return ""
    start = next((at for at, (a, b) in enumerate(zip(without, seen, strict=False)) if a != b), len(without))
    return seen[start : start + len(seen) - len(without)]
