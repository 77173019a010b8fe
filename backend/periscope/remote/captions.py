"""`/api/captions` of another Periscope, which is no route of OpenAI's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import httpx

from periscope.core import CaptionedImage, DescribedFile, FilePart, JSONObject
from periscope.errors import RemoteAnswerBroken
from periscope.remote.wire import BodyWire, Wire, read_wire

if TYPE_CHECKING:
    from periscope.remote.openai_client import OpenAIClient

#: Relative to the base URL, whose last segment is `v1`.
_PATH = "../api/captions"


class CaptionsWire(BodyWire):
    """The answer, one entry for each image."""

    captions: list[CaptionedImage] | None = None
    files: list[DescribedFile] | None = None


class KeptWire(Wire):
    """A caption of the cache; times are seconds since 1970."""

    key: str
    text: str
    num_tokens: int
    elapsed_ms: int
    created_at: float
    used_at: float


class CacheFileWire(Wire):
    """The file behind the cache."""

    path: str
    state: str
    num_unwritten: int


class StatsWire(Wire):
    """The state of the cache; no file: captions are kept in memory only."""

    num_entries: int
    num_bytes: int
    max_bytes: int
    num_hits: int
    num_misses: int
    file: CacheFileWire | None


class KeptCaptionsWire(BodyWire):
    """What a server's cache holds."""

    stats: StatsWire
    captions: list[KeptWire]


class FlushedWire(BodyWire):
    """What a flush has dropped."""

    flushed: int
    is_written: bool


async def kept_captions(client: OpenAIClient, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
    """The state of the server's caption cache, and the captions used last whose keys begin so.

    Raises:
        RemoteError: as every method of the client.
    """
    query = httpx.QueryParams({"limit": limit, "key": key})
    told = read_wire(KeptCaptionsWire, await client.get(f"{_PATH}?{query}"), client.endpoint.base_url)
    return told.stats.model_dump(), [kept.model_dump() for kept in told.captions]


async def flush_captions(client: OpenAIClient) -> tuple[int, bool]:
    """Have the server drop all captions: how many there were, and whether its file holds none of them any more.

    Raises:
        RemoteError: as every method of the client.
    """
    told = read_wire(FlushedWire, await client.delete(_PATH), client.endpoint.base_url)
    return told.flushed, told.is_written


async def caption(
    client: OpenAIClient, model: str | None, urls: Sequence[str], *, describe: bool = True
) -> tuple[CaptionedImage, ...]:
    """What the captioner of a text model says of each image, and the text in it.

    Args:
        model: None = the server's default model.
        describe: False = the text alone.

    Raises:
        RemoteError: as every method of the client.
    """
    server = client.endpoint.base_url
    alone = {} if describe else {"describe": False}  # servers of older versions do not know the field
    told = await client.post(_PATH, {"model": model, "images": list(urls), **alone})
    try:
        captions = tuple(read_wire(CaptionsWire, told, server).captions or ())
    except RemoteAnswerBroken:
        captions = ()
    if len(captions) != len(urls):
        raise RemoteAnswerBroken(f"The server at {server} is of another version: its captions have another shape.")
    return captions


async def describe_file(client: OpenAIClient, model: str | None, file: FilePart) -> DescribedFile:
    """What a text model reads in place of a file. `model`: None = the server's default model.

    Raises:
        RemoteError: as every method of the client.
    """
    server = client.endpoint.base_url
    sent = {"filename": file.name, "file_data": file.url}
    told = await client.post(_PATH, {"model": model, "files": [sent]})
    files = read_wire(CaptionsWire, told, server).files
    if files is None or len(files) != 1:
        raise RemoteAnswerBroken(f"The server at {server} is of another version: it describes no files.")
    return files[0]
