"""`periscope ask`: one question, with pictures if you like; the answer comes out as it is generated."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.exits import CommandFailed, ExitCode, code_of, complain, exits
from periscope.cli.options import AskedModel, ConfigFile, Json, Url, load_config, print_json
from periscope.core import (
    Finished,
    GenerationRequest,
    ImagePart,
    JSONObject,
    Message,
    OutputEvent,
    ReasoningDelta,
    Role,
    TextDelta,
    TextPart,
    Waiting,
    new_id,
)
from periscope.core.amounts import counted
from periscope.errors import PeriscopeError

if TYPE_CHECKING:
    from periscope.cli.client import Server
    from periscope.config import Config

#: A part of a message, as the server names it.
_PLACE = re.compile(r"messages\[(\d+)\]\.content\[(\d+)\](?:\.image_url(?:\.url)?)?")


@exits()
def ask(
    question: Annotated[str, typer.Argument(help="What to ask; - reads it from stdin.", show_default=False)],
    *,
    image: Annotated[
        list[Path] | None, typer.Option("--image", "-i", metavar="FILE", help="Picture to ask about; repeatable.")
    ] = None,
    model: AskedModel = None,
    system: Annotated[str | None, typer.Option(help="System prompt.", show_default=False)] = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Ask the running server, or a model loaded for this one question, and print the answer.

    Text that is piped in stands behind the question (`cat log.txt | periscope ask "Why?"`), a picture before it.
    """
    from periscope.cli.client import find_server
    from periscope.cli.images import image_parts
    from periscope.cli.piped import piped

    given = piped()
    images = [*image_parts(image or []), *([given] if isinstance(given, ImagePart) else [])]
    texts = ["" if question == "-" else question, given if isinstance(given, str) else ""]
    text = "\n\n".join(filter(None, texts))
    if not text:
        raise CommandFailed("There is no question.", ExitCode.USAGE)
    messages = to_messages(text, images, system)
    loaded = load_config(config)
    server = find_server(url, loaded)
    events = _ask_in_process(loaded, model, messages) if server is None else asked_of(server, model, messages)
    answer = asyncio.run(collect(events, is_shown=not as_json))
    if as_json:
        print_json({"model": model, "server": server and server.url, **answer})


def to_messages(text: str, images: Sequence[ImagePart], system: str | None) -> tuple[Message, ...]:
    """Pure: the pictures first, then the question, as one user message.

    Raises:
        CommandFailed: the question is not UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:  # Python keeps such bytes of a terminal or a file as halves of characters
        raise CommandFailed("The question is not in UTF-8.", ExitCode.USAGE) from None
    user = Message(Role.USER, (*images, TextPart(text)))
    return (user,) if system is None else (Message(Role.SYSTEM, (TextPart(system),)), user)


async def asked_of(
    server: Server, model: str | None, messages: tuple[Message, ...]
) -> AsyncGenerator[OutputEvent, None]:
    """The events of the server's answer, `Finished` last.

    Raises:
        CommandFailed: what the server says instead, with the names of files where it has places in the request.
    """
    body: JSONObject = {"messages": [wire_of(message) for message in messages]}
    try:
        async with aclosing(server.chat(body | ({} if model is None else {"model": model}))) as events:
            async for event in events:
                yield event
    except PeriscopeError as error:
        raise CommandFailed(_with_files(error.message, messages), code_of(error)) from None


def _with_files(said: str, messages: tuple[Message, ...]) -> str:
    """Pure: what a server said, where `messages[0].content[1]` is the picture's file if there is such a picture."""

    def named(place: re.Match[str]) -> str:
        number, index = int(place[1]), int(place[2])
        parts = messages[number].parts if number < len(messages) else ()
        part = parts[index] if index < len(parts) else None
        return part.param if isinstance(part, ImagePart) else place[0]

    return _PLACE.sub(named, said)


async def _ask_in_process(
    config: Config, name: str | None, messages: tuple[Message, ...]
) -> AsyncGenerator[OutputEvent, None]:
    from periscope.cli.in_process import service_of_our_own, text_model
    from periscope.config.named import captioner_name

    model = text_model(config, name)
    captioner = captioner_name(model) if any(message.images for message in messages) else None
    async with service_of_our_own(config, {model.name, captioner or model.name}, required=model.name) as service:
        request = GenerationRequest(id=new_id("ask-"), model=model.name, messages=messages)
        async with aclosing(service.stream(request)) as events:
            async for event in events:
                yield event


class Answer:
    """Owns what has come of one answer so far, which is kept when it is stopped."""

    def __init__(self) -> None:
        self.text = ""
        self.reasoning = ""
        self.finished: Finished | None = None
        self._told: str | None = None

    async def take(self, events: AsyncGenerator[OutputEvent, None], *, is_shown: bool) -> None:
        """All events. Text is shown on stdout as it comes, and on a terminal's stderr what is waited for.

        That the model has not learnt what a picture shows is told on stderr in any case.

        Raises:
            CommandFailed: they end before the answer is complete.
        """
        try:
            async with aclosing(events):
                async for event in events:
                    self._take_one(event, is_shown=is_shown)
        finally:
            if is_shown and self.text and not self.text.endswith("\n"):
                typer.echo()
        if self.finished is None:
            raise CommandFailed("The answer ended before it was complete.")
        vision = self.finished.vision
        if vision is not None and vision.num_failed:
            pictures = counted(vision.num_images, "picture")
            complain(f"{vision.num_failed} of {pictures} could not be described; the log of the server says why.")

    def _take_one(self, event: OutputEvent, *, is_shown: bool) -> None:
        match event:
            case Waiting():
                self._tell(_shown(event))
            case ReasoningDelta(delta):
                self.reasoning += delta
                self._tell("thinking")
            case TextDelta(delta):
                self.text += delta
                if is_shown:
                    typer.echo(delta, nl=False)
            case Finished():
                self.finished = event

    def _tell(self, state: str) -> None:
        """Once for each state."""
        if state != self._told and sys.stderr.isatty():
            self._told = state
            complain(f"{state} ...")


async def collect(events: AsyncGenerator[OutputEvent, None], *, is_shown: bool) -> JSONObject:
    """The whole answer, shown as it comes.

    Raises:
        CommandFailed: the events end before it is complete.
    """
    answer = Answer()
    await answer.take(events, is_shown=is_shown)
    return facts_of(answer)


def facts_of(answer: Answer) -> JSONObject:
    """Pure: the answer as it is told in JSON; nothing of its end where it was stopped."""
    finished = answer.finished
    return {
        "answer": answer.text,
        "reasoning": answer.reasoning or None,
        "finish_reason": None if finished is None else finished.finish_reason,
        "usage": None if finished is None else asdict(finished.usage),
        "vision": None if finished is None or finished.vision is None else asdict(finished.vision),
    }


def _shown(waiting: Waiting) -> str:
    """Pure: a wait in a few words, such as `captioning 1/3`."""
    words = waiting.status.replace("_", " ")
    return words if waiting.num_total is None else f"{words} {waiting.num_done}/{waiting.num_total}"


def wire_of(message: Message) -> JSONObject:
    """Pure: a message as the server takes it."""
    content = [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.url}}
        for part in message.parts
        if isinstance(part, (TextPart, ImagePart))
    ]
    return {"role": message.role, "content": content}
