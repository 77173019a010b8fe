"""Runs work for a client. A disconnect cancels it at any await."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from periscope.api.errors import ClientGone
from periscope.errors import RequestCancelled, RequestError, ServerBusy

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from starlette.types import Receive

logger = logging.getLogger(__name__)
T = TypeVar("T")


async def while_connected(work: Coroutine[Any, Any, T], receive: Receive) -> T:
    """The result of `work`, which runs in its own task and has ended when this returns or raises.

    Args:
        work: cancelled once when the client disconnects or this call is cancelled.
        receive: the ASGI callable, the request's body already read.

    Raises:
        ClientGone: the client disconnected first.
        RequestCancelled: the work was cancelled from elsewhere, by command.
    """
    working = asyncio.create_task(work)
    watching = asyncio.create_task(_disconnect(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        is_gone = not working.done()
    finally:
        await stop(watching, working)
    if is_gone:
        watching.result()  # raises what `receive` raised, if it did
        raise ClientGone
    if working.cancelled():
        raise RequestCancelled("The request was cancelled by a command to the server.")
    return working.result()


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancels the tasks and waits until they have ended, even if the caller is cancelled meanwhile.

    So a task's clean-up is never abandoned, and never cancelled twice from here. What it raises is logged.
    """
    unfinished = [task for task in tasks if not task.done()]
    for task in unfinished:
        task.cancel()
    cancelled: asyncio.CancelledError | None = None
    while pending := [task for task in unfinished if not task.done()]:
        try:
            await asyncio.wait(pending)
        except asyncio.CancelledError as error:
            cancelled = error
    for task in unfinished:
        if not task.cancelled() and (failure := task.exception()) is not None:
            logger.warning("a cancelled request raised while it cleaned up", exc_info=failure)
    if cancelled is not None:
        raise cancelled


async def _disconnect(receive: Receive) -> None:
    """Wait until the client has disconnected.

    A client whose body turns out now to be invalid, too slow or too large counts as disconnected: its answer has begun,
    so that it cannot get an error instead.
    """
    with suppress(RequestError, ServerBusy):
        while (await receive())["type"] != "http.disconnect":
            pass
