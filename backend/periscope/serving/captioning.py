"""A request's images to words, while its place at its text model is kept. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING

from periscope.core import Message, Waiting
from periscope.vision.blocks import Rewritten
from periscope.vision.proxy import VisionProxy

if TYPE_CHECKING:
    from periscope.pool.ticket import Ticket
    from periscope.serving.models import ServedModel


async def captioned(
    messages: Sequence[Message], model: ServedModel, place: Ticket, *, proxy: VisionProxy
) -> AsyncGenerator[Waiting | Rewritten, None]:
    """What the captions wait for: the captioner's queue, its load, then its words; ends with the messages in words.

    Args:
        place: reserved at the text model. When it is refused meanwhile, the captions are given up.

    Raises:
        ImageInvalid, ImageSourceRefused: an image cannot be taken; before any captioning.
        ServerBusy: the captioner, or the intake of images, has too many requests already.
        ModelUnavailable, ServerStopping: the place was refused; or no captions, and the model is set to say so.
    """
    assert model.proxy is not None  # noqa: S101 - proxy mode always has its settings
    told: asyncio.Queue[Waiting | None] = asyncio.Queue()
    rewriting = asyncio.create_task(
        proxy.rewrite(messages, model.captioner, model.proxy, tell=told.put_nowait), name="caption images"
    )
    refusal = asyncio.create_task(place.refused(), name="notice a refused place")
    for task in (rewriting, refusal):
        task.add_done_callback(lambda _: told.put_nowait(None))
    try:
        while (waiting := await told.get()) is not None:
            yield waiting
        if refusal.done():
            refusal.result()
        yield await rewriting
    finally:
        for task in (rewriting, refusal):
            task.cancel()
        await asyncio.gather(rewriting, refusal, return_exceptions=True)
