"""`periscope mcp`: an MCP server over stdin and stdout, by which agents have images seen."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from periscope.cli.exits import CommandFailed, ExitCode, exits
from periscope.cli.options import AskedModel, ConfigFile, Url, load_config
from periscope.standard_streams import never_wait_for_readers


@exits()
def mcp(
    *,
    allow: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="Folder whose files may be read, with all below it; repeatable.", show_default=False
        ),
    ] = None,
    model: AskedModel = None,
    url: Url = None,
    config: ConfigFile = None,
) -> None:
    """Serve describe_image, read_text and ask_about_image to an agent, as an MCP server over stdin and stdout.

    The running server does the work. If none runs, models are loaded into this process at the first call.
    """
    from rich.console import Console

    from periscope.cli.log import set_up_logging
    from periscope.cli.mcp_sight import FoundSight
    from periscope.mcp_server import AllowedFolders

    try:
        from periscope.mcp_server.tools import image_server
    except ModuleNotFoundError as error:
        raise CommandFailed(f"`periscope mcp` needs {error.name}: pip install 'mlx-periscope[mcp]'.") from error
    folders = [Path(os.path.expanduser(folder)) for folder in allow or []]  # noqa: PTH111 - raises nothing
    for folder in folders:
        if not folder.is_dir():
            raise CommandFailed(f"--allow {folder}: there is no such folder.", ExitCode.USAGE)
    loaded = load_config(config)
    never_wait_for_readers("stderr")
    set_up_logging(Console(stderr=True), verbosity=0, secrets=[loaded.server.api_key])

    async def serve() -> None:
        sight = FoundSight(loaded, model, url)
        try:
            await image_server(sight, AllowedFolders(folders)).run_stdio_async()
        finally:
            await sight.close()

    asyncio.run(serve())
