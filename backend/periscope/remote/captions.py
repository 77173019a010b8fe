"""`POST /api/captions` of another Periscope, which is no route of OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from periscope.core import CaptionedImage
from periscope.errors import RemoteAnswerBroken
from periscope.remote.wire import BodyWire, read_wire

if TYPE_CHECKING:
    from periscope.remote.openai_client import OpenAIClient

#: Relative to the base URL, whose last segment is `v1`.
_PATH = "../api/captions"


class CaptionsWire(BodyWire):
    """The answer, one entry for each image."""

    captions: list[CaptionedImage] | None = None


async def caption(client: OpenAIClient, model: str | None, urls: Sequence[str]) -> tuple[CaptionedImage, ...]:
    """What the captioner of a text model says of each image. `model`: None = of the server's default model.

    Raises:
        RemoteError: as every method of the client.
    """
    server = client.endpoint.base_url
    told = await client.post(_PATH, {"model": model, "images": list(urls)})
    try:
        captions = tuple(read_wire(CaptionsWire, told, server).captions or ())
    except RemoteAnswerBroken:
        captions = ()
    if len(captions) != len(urls):
        raise RemoteAnswerBroken(f"The server at {server} is of another version: its captions have another shape.")
    return captions
