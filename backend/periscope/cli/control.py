"""`periscope load`, `unload` and `select`: commands to the models of the running server, whose progress is shown."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from periscope.cli.exits import exits
from periscope.cli.options import ConfigFile, Json, Url, known_models, load_config, print_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from periscope.cli.client import Server
    from periscope.cli.progress import Display
    from periscope.core import JSONObject
    from periscope.events import Event
    from periscope.remote import ModelRow

ServedModel: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="A model of the server: its name, an alias or its hub id.", autocompletion=known_models
    ),
]
NoWait: TypeAlias = Annotated[bool, typer.Option("--no-wait", help="Ask for it and end; the server goes on.")]


@exits()
def load(
    model: ServedModel, *, no_wait: NoWait = False, url: Url = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Load a model into the running server's memory; idle models make room for it."""
    _carry_out("load", model, wait=not no_wait, url=url, config=config, as_json=as_json)


@exits()
def unload(
    model: ServedModel, *, no_wait: NoWait = False, url: Url = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Take a model out of the running server's memory as soon as its requests are done."""
    _carry_out("unload", model, wait=not no_wait, url=url, config=config, as_json=as_json)


@exits()
def select(
    model: ServedModel, *, no_wait: NoWait = False, url: Url = None, config: ConfigFile = None, as_json: Json = False
) -> None:
    """Make a text model the default of the running server, until it restarts, and load it."""
    _carry_out("select", model, wait=not no_wait, url=url, config=config, as_json=as_json)


def _carry_out(verb: str, model: str, *, wait: bool, url: str | None, config: Path | None, as_json: bool) -> None:
    from rich.console import Console

    from periscope.cli.client import require_server
    from periscope.cli.progress import display_on, print_line
    from periscope.core.amounts import size
    from periscope.remote.row_texts import state_text

    server = require_server(url, load_config(config))
    console = Console(stderr=True)

    def tell(line: str, *, is_failure: bool) -> None:  # noqa: ARG001 - all lines look alike here
        print_line(console, line)

    row = asyncio.run(command_shown(server, verb, model, wait=wait, display=display_on(console, tell)))
    if as_json:
        print_json({"url": server.url, "verb": verb, "model": row.model_dump()})
        return
    goal, meanwhile = ("unloaded", "being unloaded") if verb == "unload" else ("ready", "being loaded")
    state = state_text(row) if wait or row.state == goal else meanwhile  # the server begins after its answer
    taken = f", {size(row.held_bytes)} of memory" if row.is_resident else ""
    typer.echo(f"{row.id}: {state}{taken}{', default' if row.default else ''}")


async def command_shown(server: Server, verb: str, model: str, *, wait: bool, display: Display) -> ModelRow:
    """Carry out a command while what happens in the server is shown.

    Raises:
        PeriscopeError: what the server says instead.
    """
    async with aclosing(server.events()) as told:
        await anext(told, None)  # the snapshot: everything after it is an event of its own
        showing = asyncio.create_task(_show(told, display), name="show progress")
        try:
            return await server.command(verb, model, wait=wait)
        finally:
            showing.cancel()
            await asyncio.wait({showing})
            display.close()


async def _show(told: AsyncGenerator[tuple[str, JSONObject], None], display: Display) -> None:
    async for name, data in told:
        if (event := progress_of(name, data)) is not None:
            display.show(event)


def progress_of(name: str, data: JSONObject) -> Event | None:
    """Pure: an event of the server's status, as the display knows it; None if it tells nothing of a load."""
    from periscope.events import ModelLoadProgress, ModelStateChanged

    match name, data:
        case "model.state", {"id": str(model), "from": str(old), "to": str(new)}:
            return ModelStateChanged(model, old, new, data.get("reason"))
        case "model.changed", {"id": str(model), "load": {"done_bytes": int(done), "total_bytes": int(total)}}:
            return ModelLoadProgress(model, done, total)
        case _:
            return None
