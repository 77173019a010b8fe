"""`periscope ask`: one question, with pictures if you like; the answer comes out as it is generated."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
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

if TYPE_CHECKING:
    from periscope.config import Config


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
    """Ask the running server, or a model loaded for this one question, and print the answer."""
    from periscope.cli.client import find_server
    from periscope.cli.images import image_parts

    text = sys.stdin.read().strip() if question == "-" else question
    if not text:
        raise CommandFailed("There is no question.", ExitCode.USAGE)
    messages = to_messages(text, image_parts(image or []), system)
    loaded = load_config(config)
    server = find_server(url, loaded)
    if server is None:
        events = _ask_in_process(loaded, model, messages)
    else:
        body: JSONObject = {"messages": [_wire(message) for message in messages]}
        events = server.chat(body | ({} if model is None else {"model": model}))
    answer = asyncio.run(collect(events, is_shown=not as_json))
    if as_json:
        print_json({"model": model, "server": server and server.url, **answer})


def to_messages(text: str, images: Sequence[ImagePart], system: str | None) -> tuple[Message, ...]:
    """Pure: the pictures first, then the question, as one user message."""
    user = Message(Role.USER, (*images, TextPart(text)))
    return (user,) if system is None else (Message(Role.SYSTEM, (TextPart(system),)), user)


async def _ask_in_process(
    config: Config, name: str | None, messages: tuple[Message, ...]
) -> AsyncGenerator[OutputEvent, None]:
    from periscope.cli.in_process import captioner_of, service_of_our_own, text_model

    model = text_model(config, name)
    captioner = captioner_of(model) if any(message.images for message in messages) else None
    async with service_of_our_own(config, {model.name, captioner or model.name}, required=model.name) as service:
        request = GenerationRequest(id=new_id("ask-"), model=model.name, messages=messages)
        async with aclosing(service.stream(request)) as events:
            async for event in events:
                yield event


async def collect(events: AsyncGenerator[OutputEvent, None], *, is_shown: bool) -> JSONObject:
    """The whole answer; its text is shown on stdout as it comes, what it waits for on stderr if that is a terminal."""
    text, reasoning = "", ""
    finished: Finished | None = None
    told = ""
    try:
        async with aclosing(events):
            async for event in events:
                match event:
                    case Waiting() if (wait := _shown(event)) != told and sys.stderr.isatty():
                        told = wait
                        complain(f"{wait} ...")
                    case ReasoningDelta(delta):
                        reasoning += delta
                    case TextDelta(delta):
                        text += delta
                        if is_shown:
                            typer.echo(delta, nl=False)
                    case Finished():
                        finished = event
    finally:
        if is_shown and text and not text.endswith("\n"):
            typer.echo()
    if finished is None:
        raise CommandFailed("The answer ended before it was complete.")
    return {
        "answer": text,
        "reasoning": reasoning or None,
        "finish_reason": finished.finish_reason,
        "usage": asdict(finished.usage),
        "vision": None if finished.vision is None else asdict(finished.vision),
    }


def _shown(waiting: Waiting) -> str:
    """Pure: a wait in a few words, such as `captioning 1/3`."""
    words = waiting.status.replace("_", " ")
    return words if waiting.num_total is None else f"{words} {waiting.num_done}/{waiting.num_total}"


def _wire(message: Message) -> JSONObject:
    content = [
        {"type": "text", "text": part.text}
        if isinstance(part, TextPart)
        else {"type": "image_url", "image_url": {"url": part.url}}
        for part in message.parts
        if isinstance(part, (TextPart, ImagePart))
    ]
    return {"role": message.role, "content": content}
