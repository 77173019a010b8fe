"""`periscope caption`: what the captioner says about pictures, without a question."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import AskedModel, ConfigFile, Json, Url, load_config, print_json
from periscope.core import CaptionedImage, ImagePart, JSONObject
from periscope.errors import ImageInvalid, ImageNotFetched, ImageSourceRefused, ServerBusy

if TYPE_CHECKING:
    from periscope.cli.client import Server
    from periscope.config import Config

#: Pictures under way together. Each is a request of its own, so that a broken one is no other's fault; the captioner
#: batches what comes together.
MAX_AT_ONCE = 8

Describe: TypeAlias = Callable[[ImagePart], Awaitable[CaptionedImage]]


@exits()
def caption(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Pictures.", show_default=False)],
    *,
    model: AskedModel = None,
    url: Url = None,
    config: ConfigFile = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what the text model reads in place of a picture.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Describe pictures with the captioner of a model: of the running server, or loaded for this."""
    from periscope.cli.client import find_server
    from periscope.cli.images import image_parts

    images = image_parts(files)
    loaded = load_config(config)
    server = find_server(url, loaded)
    told = asyncio.run(
        _tell_all(images, _describer(loaded, server, model), shown=None if as_json else "block" if explain else "text")
    )
    if as_json:
        print_json({"server": server and server.url, "captions": told})
    if any(said["text"] is None for said in told):
        raise typer.Exit(ExitCode.FAILURE)


async def _tell_all(
    images: Sequence[ImagePart], describer: AbstractAsyncContextManager[Describe], *, shown: str | None
) -> list[JSONObject]:
    """What is said of each picture, shown in order as soon as it is there: captions on stdout, failures on stderr.

    Args:
        shown: the field of each result that is shown; None = nothing is.
    """
    told: list[JSONObject] = []
    async with describer as describe, aclosing(in_order(images, describe)) as captions:
        async for said in captions:
            file, text = said["file"], said["text"]
            told.append(said)
            if text is None:
                complain(f"{file}: {said['error']}")
            if shown == "block" and said["block"]:
                typer.echo(said["block"])
            elif shown is not None and text is not None:
                typer.echo(text if len(images) == 1 else f"{file}: {text}")
    return told


async def in_order(images: Sequence[ImagePart], describe: Describe) -> AsyncGenerator[JSONObject, None]:
    """Describes up to `MAX_AT_ONCE` pictures together; one result each, in order, with a reason where there is no text.

    Raises:
        PeriscopeError, CommandFailed: no picture can be described, and why.
    """
    limit = asyncio.Semaphore(MAX_AT_ONCE)

    async def one(image: ImagePart) -> JSONObject:
        async with limit:
            try:
                return {"file": image.param, **asdict(await describe(image))}
            except (ImageInvalid, ImageNotFetched, ImageSourceRefused, ServerBusy) as error:
                nothing = dict.fromkeys(field.name for field in fields(CaptionedImage))
                return {"file": image.param, **nothing, "error": error.message}

    tasks = [asyncio.create_task(one(image)) for image in images]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _describer(config: Config, server: Server | None, name: str | None) -> AsyncIterator[Describe]:
    """The server's captioner, or that of a runtime of our own."""
    from periscope.cli.in_process import service_of_our_own, text_model
    from periscope.config.named import captioner_name

    if server is not None:
        yield lambda image: server.caption(name, image)
        return
    model = text_model(config, name)
    captioner = captioner_name(model)
    if captioner is None:
        raise CommandFailed(
            f"Model {model.name} has no captioner. Set `capabilities.vision_mode: proxy` for it, or name another model."
        )
    async with service_of_our_own(config, {captioner}, required=captioner) as service:

        async def describe(image: ImagePart) -> CaptionedImage:
            (captioned,) = await service.caption(model.name, (image,))
            return captioned

        yield describe
