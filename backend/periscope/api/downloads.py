"""Routes for downloads of models, which a command starts, pauses, resumes and cancels. No other request starts one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from periscope.api.commands import read_command, refuse_fields
from periscope.api.openapi import documented
from periscope.api.openapi.places import own_shapes
from periscope.api.record import record_of
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter
from periscope.api.status_wire import encode_download, encode_downloads
from periscope.api.validation import Command
from periscope.core import DownloadCommand
from periscope.status import DownloadStatus

if TYPE_CHECKING:
    from periscope.api.backend import ControlBackend


class StartDownload(Command):
    """`POST /api/downloads`. `only`: without the model's captioner, reader and draft model."""

    model: Annotated[str, Field(min_length=1, max_length=200)]
    revision: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    only: bool = False


def downloads_router(control: ControlBackend) -> APIRouter:
    """The routes of `/api/downloads`: to list, start, pause, resume and remove downloads."""
    router = APIRouter()

    @router.api_route(
        "/api/downloads", methods=GET, **documented("Periscope", "The downloads of models.", own_shapes.DownloadList)
    )
    async def list_downloads() -> Response:
        return JSONReply(encode_downloads(control.downloads()))

    @router.api_route(
        "/api/downloads/{download_id}", methods=GET, **documented("Periscope", "One download.", DownloadStatus)
    )
    async def show_download(download_id: str) -> Response:
        return JSONReply(encode_download(control.download(download_id)))

    @router.post(
        "/api/downloads",
        **documented(
            "Periscope", "Fetches a model, and what works for it.", own_shapes.DownloadList, body=StartDownload
        ),
    )
    async def start_download(request: Request) -> Response:
        command = await read_command(StartDownload, request)
        record_of(request.scope).model = command.model
        started = control.start_download(command.model, revision=command.revision, alone=command.only)
        return JSONReply(encode_downloads(started))

    for command in DownloadCommand:
        router.add_api_route(
            f"/api/downloads/{{download_id}}/{command}",
            _steer(control, command),
            methods=["POST"],
            **documented("Periscope", f"{command.capitalize()}s a download.", DownloadStatus),
        )
    return router


def _steer(control: ControlBackend, command: DownloadCommand) -> Callable[[str, Request], Awaitable[Response]]:
    async def steer_download(download_id: str, request: Request) -> Response:
        await refuse_fields(request)
        return JSONReply(encode_download(control.steer_download(download_id, command)))

    return steer_download
