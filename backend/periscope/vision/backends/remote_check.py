"""Asks a server whether it can caption: is it fit, does it serve the model, can that see. Event loop only."""

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

#: A server that is fit answers these questions from memory.
_CHECK_TIMEOUT_S: Final = 10.0
#: A plain picture, large enough for the patches of every captioner. White, so that it packs into a few bytes.
_SIDE_PX: Final = 64
_PLAIN: Final = Image(b"\xff" * (3 * _SIDE_PX * _SIDE_PX), _SIDE_PX, _SIDE_PX, _SIDE_PX, _SIDE_PX, sha256="")
#: The model may still have to be loaded for the first picture: a wait beyond this says nothing against it.
_LOOK_TIMEOUT_S: Final = 20.0


async def problem_of(client: OpenAIClient, server: RemoteServer, *, looks: bool) -> str | None:
    """What is wrong and how to mend it, for a person; None if nothing is.

    Args:
        looks: have the model look at a plain picture too, which takes it one token. It is the only way to learn whether
            it can see; and whether it is served, where the listing does not tell all names.
    """
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await _check_health(client, server)
            listed = [model.id for model in await client.list_models()]
    except TimeoutError:
        return f"The server at {server.base_url} did not answer within {_CHECK_TIMEOUT_S:g} s. Check whether it hangs."
    except RemoteError as error:
        return advice_on(error, server)
    if server.model in listed:
        return await _problem_of_look(client, server) if looks else None
    return no_such_model(server, listed) if await _problem_of_look(client, server) else None


async def _check_health(client: OpenAIClient, server: RemoteServer) -> None:
    """1 fit; 2 no such path in this version; 3 the path is not for us; in 2 and 3 the listing has to do.

    Raises:
        RemoteError: the server says that it is not fit, or does not answer.
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
