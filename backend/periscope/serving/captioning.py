"""Captions the images of a request while its place in the queue of its text model is reserved. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import TYPE_CHECKING, Final

from periscope.core import Message, Waiting
from periscope.vision.blocks import Rewritten
from periscope.vision.documents.settings import DocumentMode, DocumentSettings
from periscope.vision.proxy import VisionProxy
from periscope.vision.settings import ProxySettings

if TYPE_CHECKING:
    from periscope.pool.ticket import Ticket
    from periscope.serving.models import ServedModel

#: A model without vision gets the text of documents, which needs no captioner.
_WITHOUT_VISION: Final = ProxySettings(documents=DocumentSettings(mode=DocumentMode.TEXT))


async def captioned(
    messages: Sequence[Message], model: ServedModel, place: Ticket, *, proxy: VisionProxy
) -> AsyncGenerator[Waiting | Rewritten, None]:
    """Yield what captioning waits for each time that changes, and at the end the messages without images.

    Args:
        place: the reserved place at the text model. If it is refused meanwhile, the captions are cancelled.

    Raises:
        ImageInvalid, ImageSourceRefused, DocumentInvalid: one cannot be taken; before any captioning.
        ServerBusy: the captioner or the intake has too many requests, or an image's turn did not come in time.
        ModelUnavailable, ServerStopping: the place was refused.
        CaptionerUnavailable: an image could not be captioned, and the model's `on_error` asks for an error.
    """
    told: asyncio.Queue[Waiting | None] = asyncio.Queue()
    rewriting = asyncio.create_task(
        proxy.rewrite(messages, model.captioner, model.proxy or _WITHOUT_VISION, tell=told.put_nowait),
        name="caption images",
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
