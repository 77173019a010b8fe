"""A request's images to words, while its place at its text model is kept. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING

from periscope.core import Message, Waiting, WaitStatus
from periscope.vision.proxy import Rewritten, VisionProxy

if TYPE_CHECKING:
    from periscope.pool.pool import ModelPool
    from periscope.pool.ticket import Ticket
    from periscope.serving.models import ServedModel


async def captioned(
    messages: Sequence[Message], model: ServedModel, place: Ticket, *, pool: ModelPool, proxy: VisionProxy
) -> AsyncGenerator[Waiting | Rewritten, None]:
    """What the captions wait for: first the captioner, then its words; ends with the messages in words.

    Args:
        place: reserved at the text model. When it is refused meanwhile, the captions are given up.

    Raises:
        ImageInvalid, ImageSourceRefused: an image cannot be taken; before any captioning.
        ServerBusy: the captioner, or the intake of images, has too many requests already.
        ModelUnavailable, ServerStopping: the place was refused; or no captions, and the model is set to say so.
    """
    assert model.proxy is not None  # noqa: S101 - proxy mode always has its settings
    news: asyncio.Queue[Waiting | None] = asyncio.Queue()
    has_begun = asyncio.Event()

    async def tell_waits() -> None:
        await has_begun.wait()
        captioner = model.captioner_model
        if captioner is None:
            news.put_nowait(Waiting(WaitStatus.CAPTIONING, ""))
            return
        async with aclosing(pool.waits_for(captioner)) as waits:
            async for waiting in waits:
                news.put_nowait(waiting or Waiting(WaitStatus.CAPTIONING, captioner))

    rewriting = asyncio.create_task(
        proxy.rewrite(messages, model.captioner, model.proxy, on_captioning=has_begun.set), name="caption images"
    )
    refusal = asyncio.create_task(place.refused(), name="notice a refused place")
    telling = asyncio.create_task(tell_waits(), name="tell what captions wait for")
    for task in (rewriting, refusal):
        task.add_done_callback(lambda _: news.put_nowait(None))
    try:
        while (waiting := await news.get()) is not None:
            yield waiting
        if refusal.done():
            refusal.result()
        yield await rewriting
    finally:
        for each in (rewriting, refusal, telling):
            each.cancel()
        await asyncio.gather(rewriting, refusal, telling, return_exceptions=True)
