"""`periscope connect`: the settings with which another program uses this server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from periscope.cli.address import UNIX
from periscope.cli.exits import CommandFailed, ExitCode, complain, exits
from periscope.cli.options import AskedModel, ConfigFile, Json, Url, load_config, print_json

if TYPE_CHECKING:
    from periscope.cli.clients import Client, Connection
    from periscope.config import Config


@exits()
def connect(
    client: Annotated[
        str, typer.Argument(help="claude-code, codex, opencode, open-webui, xcode, llm, langchain, litellm or mcp.")
    ] = "",
    *,
    model: AskedModel = None,
    url: Url = None,
    config: ConfigFile = None,
    as_json: Json = False,
) -> None:
    """Print the settings with which a client uses this server; without CLIENT, which clients there are."""
    from periscope.cli.clients import CLIENTS, KEY_PLACE, find_client

    if not client:
        _list(as_json=as_json)
        return
    found = find_client(client)
    if found is None:
        known = ", ".join(each.name for each in CLIENTS)
        raise CommandFailed(f"{client!r} is none of the clients that are known: {known}.", ExitCode.USAGE)
    _require_served(found)
    to = _connection(load_config(config), url, model)
    if as_json:
        told = {"client": found.name, "url": to.url, "base_url": to.base_url, "model": to.model}
        print_json({**told, "needs_key": to.has_key, "settings": found.settings(to)})
        return
    typer.echo(found.settings(to))
    if to.has_key:
        complain(f"Put the server's key for {KEY_PLACE}: `periscope token show` prints it.")
    if (warning := found.warning(to)) is not None:
        complain(warning)


def _list(*, as_json: bool) -> None:
    from periscope.cli.clients import CLIENTS
    from periscope.cli.config import table

    rows = [
        {"client": each.name, "title": each.title, "api": each.api, "is_served": _is_served(each)} for each in CLIENTS
    ]
    if as_json:
        print_json({"clients": rows})
        return
    cells = [
        (str(row["client"]), str(row["title"]), str(row["api"]), "yes" if row["is_served"] else "not in this version")
        for row in rows
    ]
    for line in table([("CLIENT", "NAME", "CALLS", "SERVED"), *cells]):
        typer.echo(line)


def _is_served(client: Client) -> bool:
    from periscope.api.paths import PATHS

    return client.route in PATHS


def _require_served(client: Client) -> None:
    if not _is_served(client):
        raise CommandFailed(
            f"{client.title} calls {client.api} ({client.route}), which this version does not serve. "
            "Clients of OpenAI's chat completions work; `periscope connect` lists them."
        )


def _connection(config: Config, url: str | None, model: str | None) -> Connection:
    """To the running server, else to the one that the configuration describes."""
    from periscope.cli.address import address_of
    from periscope.cli.client import find_server
    from periscope.cli.clients import Connection
    from periscope.cli.in_process import text_model
    from periscope.core import VisionMode, require_model

    server = find_server(url, config)
    if server is not None:
        models, has_key = asyncio.run(server.models()), asyncio.run(server.needs_key())
        served = require_model(models, model or "", default=next(iter(models), None))  # the default one comes first
        return Connection(
            _reachable(server.url), served.name, has_key, served.context_length, "image" in served.input_modalities
        )
    complain("No server runs now: these are the settings for the one that `periscope serve` would start.")
    entry = text_model(config, model)
    takes_images = entry.capabilities.vision_mode is not VisionMode.DISABLED
    url, has_key = _reachable(address_of(config.server).url), config.server.needs_key
    return Connection(url, entry.name, has_key, entry.params.context_length, takes_images)


def _reachable(url: str) -> str:
    if url.startswith(UNIX):
        raise CommandFailed(
            f"The server listens on {url} alone, and these settings are for clients that need a port: set server.tcp."
        )
    return url
