"""The bodies of Periscope's own commands, which are a few fields or none."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

from periscope.api.json_reading import read_json
from periscope.api.validation import Command, validate

if TYPE_CHECKING:
    from starlette.requests import Request

CommandT = TypeVar("CommandT", bound=Command)

#: Size of a command's body, which holds a name and a flag.
_MAX_BYTES = 64 * 1024


class NoFields(Command):
    """The body of a command that takes none."""


async def read_command(shape: type[CommandT], request: Request) -> CommandT:
    """The command in the request's body.

    Raises:
        InvalidRequest, BodyTooLarge, RequestTimedOut, ClientGone: as `read_json`.
    """
    return await read_json(request, _MAX_BYTES, partial(validate, shape))


async def refuse_fields(request: Request) -> None:
    """Check the body of a command without fields: there is none, or it is an empty object.

    Raises:
        InvalidRequest, BodyTooLarge, RequestTimedOut, ClientGone: as `read_json`.
    """
    if request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers:
        await read_command(NoFields, request)
