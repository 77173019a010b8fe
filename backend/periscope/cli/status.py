"""`periscope status` and `ps`: the running server as it is now, and what it has in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

import typer

from periscope.cli.config import table
from periscope.cli.exits import CommandFailed, complain, exits
from periscope.cli.options import ConfigFile, Json, Url, load_config, print_json
from periscope.core.amounts import duration, size
from periscope.remote.row_texts import download_text, host_text, state_text, tool_server_text

if TYPE_CHECKING:
    from periscope.remote import ModelRow, Snapshot
    from periscope.remote.control import RequestRow

_MODEL_HEADINGS = ("MODEL", "KIND", "STATE", "MEMORY", "RUNNING", "WAITING", "UNLOADED IN")
_REQUEST_HEADINGS = ("REQUEST", "MODEL", "STATUS", "AGE", "PICTURES")


@exits()
def status(*, url: Url = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """Show the running server: its state, memory, models and requests; exit code 3 when none runs."""
    from periscope.cli.client import require_server

    loaded = load_config(config)
    try:
        server = require_server(url, loaded)
    except CommandFailed:
        if as_json:
            print_json({"running": False, "url": None, "status": None})
        raise
    snapshot = asyncio.run(server.status())
    if as_json:
        print_json({"running": True, "url": server.url, "status": snapshot.model_dump()})
        return
    for line in table(list(_rows(server.url, snapshot))):
        typer.echo(line)
    for problem in snapshot.server.problems:
        complain(problem)


@exits()
def ps(*, url: Url = None, config: ConfigFile = None, as_json: Json = False) -> None:
    """List the models in the running server's memory, and the requests that run or wait."""
    from periscope.cli.client import require_server

    server = require_server(url, load_config(config))
    snapshot = asyncio.run(server.status())
    models = [model for model in snapshot.models if model.is_resident]
    if as_json:
        requests = [request.model_dump() for request in snapshot.requests]
        print_json({"url": server.url, "models": [model.model_dump() for model in models], "requests": requests})
        return
    if models:
        _print([_MODEL_HEADINGS, *map(_model_cells, models)])
    else:
        complain(f"No model is in memory at {server.url}: a request loads one, or `periscope load MODEL`.")
    if snapshot.requests:
        typer.echo()
        _print([_REQUEST_HEADINGS, *map(_request_cells, snapshot.requests)])


def _print(rows: list[tuple[str, ...]]) -> None:
    for line in table(rows):
        typer.echo(line)


def _model_cells(model: ModelRow) -> tuple[str, ...]:
    marks = ["default"] * model.default + ["pinned"] * model.pinned
    return (
        f"{model.id} ({', '.join(marks)})" if marks else model.id,
        model.kind,
        state_text(model),
        size(model.held_bytes),
        f"{model.active_requests} of {model.max_active}",
        str(model.queued),
        "-" if model.unload_in_s is None else duration(model.unload_in_s),
    )


def _request_cells(request: RequestRow) -> tuple[str, ...]:
    return request.id, request.model, request.status, duration(request.age_s), str(request.num_images)


def _rows(url: str, snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    server, memory = snapshot.server, snapshot.memory
    yield "server", f"{url}, version {server.version}, process {server.pid}, up {duration(server.uptime_s)}"
    yield "state", server.state
    yield "memory", f"{size(memory.held_bytes)} of {size(memory.budget_bytes)} taken by models"
    yield (
        "MLX",
        f"{size(memory.active_bytes)} in use, {size(memory.cache_bytes)} cached, {size(memory.peak_bytes)} at most",
    )
    if machine := host_text(snapshot.host):
        yield "machine", machine
    for model in snapshot.models:
        marks = f", {size(model.held_bytes)}" if model.is_resident else ""
        marks += ", default" if model.default else "" if model.kind == "text" else f", {model.kind}"
        yield "model", f"{model.id}: {state_text(model)}{marks}"
    for download in snapshot.downloads:
        yield "download", download_text(download)
    for tool_server in snapshot.mcp_servers:
        yield "MCP server", tool_server_text(tool_server)
    num_running = sum(model.active_requests for model in snapshot.models)
    num_waiting = sum(model.queued for model in snapshot.models)
    yield "requests", f"{num_running} running, {num_waiting} waiting, {server.num_finished} ended"
