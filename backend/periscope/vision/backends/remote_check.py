"""Checks whether a server can caption: its health, its models, whether the model sees. Event loop only."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from periscope.core import Image
from periscope.errors import RemoteError, RemoteRefused, RemoteTimedOut
from periscope.vision.backends.advice import advice_on, no_such_model
from periscope.vision.backends.remote_model import ask, caption_body, is_busy
from periscope.vision.images.encode import png_data_url

if TYPE_CHECKING:
    from periscope.remote import OpenAIClient
    from periscope.vision.backends.remote_server import RemoteServer

#: A healthy server answers these requests at once.
_CHECK_TIMEOUT_S: Final = 10.0
#: A plain image, large enough for the patches of every captioner. White, so that it compresses to a few bytes.
_SIDE_PX: Final = 64
_PLAIN: Final = Image(b"\xff" * (3 * _SIDE_PX * _SIDE_PX), _SIDE_PX, _SIDE_PX, _SIDE_PX, _SIDE_PX, sha256="")
#: The server may have to load the model for the first image, so a longer wait is not a failure.
_LOOK_TIMEOUT_S: Final = 20.0


async def problem_of(client: OpenAIClient, server: RemoteServer, *, looks: bool) -> str | None:
    """The problem and its fix, for the user; None if there is none.

    Args:
        looks: also ask the model about a plain image, for one token. There is no other way to learn whether it sees,
            or whether it is served if the listing is incomplete.
    """
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await _check_health(client, server)
            listed = [model.name for model in await client.list_models()]
    except TimeoutError:
        return f"The server at {server.base_url} did not answer within {_CHECK_TIMEOUT_S:g} s. Check whether it hangs."
    except RemoteError as error:
        return advice_on(error, server)
    if server.model in listed:
        return await _problem_of_look(client, server) if looks else None
    return no_such_model(server, listed) if await _problem_of_look(client, server) else None


async def _check_health(client: OpenAIClient, server: RemoteServer) -> None:
    """Cases: 1 healthy; 2 this version has no such path; 3 the path is forbidden. In 2 and 3 the listing decides.

    Raises:
        RemoteError: the server says that it is not healthy, or does not answer.
    """
    for path in server.dialect.health_paths:
        try:
            await client.get(path)
        except RemoteRefused as error:
            if error.status in (404, 405):  # 2
                continue
            if error.status in (401, 403):  # 3
                return
            raise
        return  # 1


async def _problem_of_look(client: OpenAIClient, server: RemoteServer) -> str | None:
    body = caption_body(server, png_data_url(_PLAIN), "Describe the image.", 1)
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            await ask(client, server, body)
    except (TimeoutError, RemoteTimedOut):
        return None
    except RemoteError as error:
        return None if is_busy(error) else advice_on(error, server)
    return None
