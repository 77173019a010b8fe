"""`periscope caption`: what a text model reads in place of images and other files, without a question."""

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
from periscope.core import CaptionedImage, DescribedFile, FilePart, ImagePart, JSONObject
from periscope.errors import FileInvalid, ImageInvalid, ImageNotFetched, ImageSourceRefused, ServerBusy

if TYPE_CHECKING:
    from periscope.cli.client import Server
    from periscope.config import Config

#: Pictures under way together. Each is a request of its own, so that a broken one is no other's fault; the captioner
#: batches what comes together.
MAX_AT_ONCE = 8

Part: TypeAlias = ImagePart | FilePart
Describe: TypeAlias = Callable[[Part], Awaitable[CaptionedImage | DescribedFile]]


@exits()
def caption(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Images, documents, videos.", show_default=False)
    ],
    *,
    model: AskedModel = None,
    url: Url = None,
    config: ConfigFile = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show what the text model reads in place of a picture.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Describe images, documents and videos as a text model reads them, with the captioner of the model.

    The running server is asked, or the captioner is loaded for this.
    """
    from periscope.cli.client import find_server
    from periscope.cli.images import attached_parts

    parts = attached_parts(files)
    loaded = load_config(config)
    server = find_server(url, loaded)
    told = asyncio.run(
        _tell_all(parts, _describer(loaded, server, model), shown=None if as_json else "block" if explain else "text")
    )
    if as_json:
        print_json({"server": server and server.url, "captions": told})
    if any(said["error"] for said in told):
        raise typer.Exit(ExitCode.FAILURE)


async def _tell_all(
    parts: Sequence[Part], describer: AbstractAsyncContextManager[Describe], *, shown: str | None
) -> list[JSONObject]:
    """What is said of each picture, shown in order as soon as it is there: captions on stdout, failures on stderr.

    Args:
        shown: the field of each result that is shown; None = nothing is.
    """
    told: list[JSONObject] = []
    async with describer as describe, aclosing(in_order(parts, describe)) as captions:
        async for said in captions:
            file, text = said["file"], said["text"]
            told.append(said)
            if said["error"]:
                complain(f"{file}: {said['error']}")
            if shown == "block" and said["block"]:
                typer.echo(said["block"])
            elif shown is not None and text is not None:
                typer.echo(text if len(parts) == 1 else f"{file}: {text}")
    return told


async def in_order(parts: Sequence[Part], describe: Describe) -> AsyncGenerator[JSONObject, None]:
    """Describes up to `MAX_AT_ONCE` pictures together; one result each, in order, with a reason where there is no text.

    Raises:
        PeriscopeError, CommandFailed: no picture can be described, and why.
    """
    limit = asyncio.Semaphore(MAX_AT_ONCE)

    async def one(part: Part) -> JSONObject:
        async with limit:
            try:
                return {"file": part.param, **_said(await describe(part))}
            except (ImageInvalid, ImageNotFetched, ImageSourceRefused, FileInvalid, ServerBusy) as error:
                nothing = dict.fromkeys(field.name for field in fields(CaptionedImage))
                return {"file": part.param, **nothing, "error": error.message}

    tasks = [asyncio.create_task(one(part)) for part in parts]
    try:
        for task in tasks:
            yield await task
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _said(result: CaptionedImage | DescribedFile) -> JSONObject:
    """The fields of a caption; the text of another file is the block that the text model reads."""
    if isinstance(result, CaptionedImage):
        return asdict(result)
    failed, seen = result.num_failed, result.num_images
    error = f"{failed} of its {seen} pages or frames were not described" if failed else None
    return {"text": result.block, "error": error, **asdict(result)}


@asynccontextmanager
async def _describer(config: Config, server: Server | None, name: str | None) -> AsyncIterator[Describe]:
    """The server's captioner, or that of a runtime of our own."""
    from periscope.cli.in_process import service_of_our_own, text_model
    from periscope.config.named import captioner_name

    if server is not None:

        async def asked(part: Part) -> CaptionedImage | DescribedFile:
            if isinstance(part, FilePart):
                return await server.describe_file(name, part)
            return await server.caption(name, part)

        yield asked
        return
    model = text_model(config, name)
    captioner = captioner_name(model)
    if captioner is None:
        raise CommandFailed(
            f"Model {model.name} has no captioner. Set `capabilities.vision_mode: proxy` for it, or name another model."
        )
    async with service_of_our_own(config, {captioner}, required=captioner) as service:

        async def describe(part: Part) -> CaptionedImage | DescribedFile:
            if isinstance(part, FilePart):
                return (await service.describe_files(model.name, (part,)))[0]
            return (await service.caption(model.name, (part,)))[0]

        yield describe
