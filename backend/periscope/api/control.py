"""Periscope's own routes, which have no counterpart in the dialects: decode, call, encode."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from pydantic import Field, JsonValue
from starlette.requests import Request
from starlette.responses import Response

from periscope.api.commands import read_command, refuse_fields
from periscope.api.disconnect import while_connected
from periscope.api.documents import file_part
from periscope.api.downloads import downloads_router
from periscope.api.json_reading import read_json
from periscope.api.kept_captions import kept_captions_router
from periscope.api.openapi import documented
from periscope.api.openapi.places import own_shapes
from periscope.api.record import record_of
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter
from periscope.api.sse import STREAM_HEADERS
from periscope.api.status_stream import StatusStream
from periscope.api.status_wire import encode_model, encode_requests, encode_status
from periscope.api.validation import Command, validate
from periscope.core import ConfigChanges, ImagePart, JSONObject
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend, ControlBackend
    from periscope.api.settings import ApiSettings


#: Described one after the other.
_MAX_FILES = 32


class CaptionsWire(Command):
    """The body of `POST /api/captions`: images as `data:` URLs, other files, and the text model that reads them."""

    model: str | None = None
    images: list[str] = Field(default_factory=list)
    describe: bool = Field(default=True, description="If false, the text in the images is read, and nothing else.")
    files: list[dict[str, JsonValue]] = Field(default_factory=list, max_length=_MAX_FILES)


class ModelCommand(Command):
    """A command to one model, named as in requests."""

    model: Annotated[str, Field(min_length=1)]


class WaitingCommand(ModelCommand):
    """A command that may take long. With `wait`, the answer comes when it is done, otherwise at once."""

    wait: bool = False


class PinCommand(ModelCommand):
    """The body of `POST /api/models/pin`."""

    pinned: bool = True


#: Of the body of a command to a model, for the OpenAPI document.
_EXAMPLE: Final = {"model": "default"}

ModelCommandT = TypeVar("ModelCommandT", bound=ModelCommand)


def control_router(backend: ChatBackend, control: ControlBackend, settings: ApiSettings) -> APIRouter:
    """Everything under `/api`, and `/v1/models/select`."""
    router = APIRouter()
    router.include_router(_captions(backend, settings))
    router.include_router(kept_captions_router(control))
    router.include_router(downloads_router(control))
    router.include_router(_watching(control, settings))
    router.include_router(_requests(control))
    router.include_router(_server(control))
    router.include_router(_models(control))
    return router


def _captions(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/api/captions",
        **documented(
            "Periscope",
            "What a text model reads in place of images and files.",
            own_shapes.CaptionsReply,
            body=CaptionsWire,
        ),
    )
    async def create_captions(request: Request) -> Response:
        wire = await read_json(request, settings.max_text_bytes, partial(validate, CaptionsWire))
        record_of(request.scope).model = wire.model or ""
        return JSONReply(await while_connected(_described(backend, wire), request.receive))

    return router


async def _described(backend: ChatBackend, wire: CaptionsWire) -> JSONObject:
    """The caption of each image, and what the text model reads in place of each file.

    Raises:
        RequestError: there is nothing to describe, or something that cannot be taken.
    """
    if not wire.images and not wire.files:
        raise InvalidRequest(
            "`images` and `files` are both empty. Send data: URLs in `images`, or objects with `filename` and "
            "`file_data` in `files`.",
            param="images",
        )
    model = wire.model or ""
    images = tuple(ImagePart(url, f"images[{i}]") for i, url in enumerate(wire.images))
    files = tuple(file_part(file, f"files[{i}]") for i, file in enumerate(wire.files))
    look = backend.caption if wire.describe else backend.read
    captions = await look(model, images) if images else ()
    described = await backend.describe_files(model, files) if files else ()
    return {"captions": [asdict(caption) for caption in captions], "files": [asdict(file) for file in described]}


def _watching(control: ControlBackend, settings: ApiSettings) -> APIRouter:
    router = APIRouter()

    @router.api_route(
        "/api/status",
        methods=GET,
        **documented("Periscope", "The whole server at this moment.", own_shapes.StatusReply),
    )
    async def show_status() -> Response:
        return JSONReply(encode_status(control.status()))

    @router.api_route(
        "/api/events",
        methods=GET,
        **documented(
            "Periscope",
            "The snapshot, then what changes.",
            events="`id`, `event` and `data` (JSON): first `snapshot`, as `/api/status`.",
        ),
    )
    async def follow_events(request: Request) -> Response:
        if request.method == "HEAD":  # a stream has no end to wait for
            return Response(headers=STREAM_HEADERS)
        return StatusStream(control.events(), settings)

    return router


def _requests(control: ControlBackend) -> APIRouter:
    router = APIRouter()

    @router.api_route(
        "/api/requests",
        methods=GET,
        **documented("Periscope", "The requests that wait or run.", own_shapes.RequestList),
    )
    async def list_requests() -> Response:
        return JSONReply(encode_requests(control.requests()))

    @router.post(
        "/api/requests/{request_id}/cancel",
        **documented("Periscope", "Cancels a request.", own_shapes.CancelledRequest),
    )
    async def cancel_request(request_id: str, request: Request) -> Response:
        await refuse_fields(request)
        control.cancel(request_id)
        return JSONReply({"id": request_id, "cancelled": True})

    @router.post(
        "/api/requests/{request_id}/answer_now",
        **documented("Periscope", "Ends the thinking of a request.", own_shapes.AnsweringRequest, status=202),
    )
    async def answer_now(request_id: str, request: Request) -> Response:
        await refuse_fields(request)
        control.answer_now(request_id)
        return JSONReply({"id": request_id, "answering": True}, status_code=202)

    return router


def _server(control: ControlBackend) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/api/server/shutdown",
        **documented("Periscope", "Ends the server in order.", own_shapes.StoppingServer, status=202),
    )
    async def shut_down(request: Request) -> Response:
        await refuse_fields(request)
        control.shutdown()
        return JSONReply({"state": "stopping"}, status_code=202)

    @router.post("/api/server/reload", **documented("Periscope", "Reads models.yaml again.", ConfigChanges))
    async def reload_config(request: Request) -> Response:
        await refuse_fields(request)
        return JSONReply(asdict(await control.reload()))

    return router


def _models(control: ControlBackend) -> APIRouter:
    router = APIRouter()

    @router.post(
        "/api/models/load",
        **documented("Periscope", "Loads a model.", own_shapes.ModelRow, body=WaitingCommand, example=_EXAMPLE),
    )
    async def load_model(request: Request) -> Response:
        command = await _command(WaitingCommand, request)
        loading = control.load(command.model, wait=command.wait)
        return JSONReply(encode_model(await while_connected(loading, request.receive)))

    @router.post(
        "/api/models/unload",
        **documented("Periscope", "Unloads a model.", own_shapes.ModelRow, body=WaitingCommand, example=_EXAMPLE),
    )
    async def unload_model(request: Request) -> Response:
        command = await _command(WaitingCommand, request)
        unloading = control.unload(command.model, wait=command.wait)
        return JSONReply(encode_model(await while_connected(unloading, request.receive)))

    @router.post(
        "/api/models/pin",
        **documented(
            "Periscope", "Pins a model in memory, or unpins it.", own_shapes.ModelRow, body=PinCommand, example=_EXAMPLE
        ),
    )
    async def pin_model(request: Request) -> Response:
        command = await _command(PinCommand, request)
        return JSONReply(encode_model(control.pin(command.model, pinned=command.pinned)))

    @router.post(
        "/v1/models/select",
        **documented(
            "Periscope",
            "Makes a model the default, and loads it.",
            own_shapes.ModelRow,
            body=WaitingCommand,
            example=_EXAMPLE,
        ),
    )
    async def select_model(request: Request) -> Response:
        command = await _command(WaitingCommand, request)
        selecting = control.select(command.model, wait=command.wait)
        return JSONReply(encode_model(await while_connected(selecting, request.receive)))

    return router


async def _command(shape: type[ModelCommandT], request: Request) -> ModelCommandT:
    command = await read_command(shape, request)
    record_of(request.scope).model = command.model
    return command
