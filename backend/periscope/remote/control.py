"""The control routes of another Periscope: its status, its events, and commands to its models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal

import httpx
from pydantic import ConfigDict, TypeAdapter, ValidationError

from periscope.core import JSONObject
from periscope.errors import RemoteAnswerBroken
from periscope.remote.wire import Wire, read_shape

if TYPE_CHECKING:
    from periscope.remote.openai_client import OpenAIClient

#: Relative to the base URL, whose last segment is `v1`.
_STATUS, _EVENTS, _LOGS = "../api/status", "../api/events", "../api/logs"
_COMMANDS: Mapping[str, str] = {
    "load": "../api/models/load",
    "unload": "../api/models/unload",
    "select": "models/select",
}
_OBJECT: TypeAdapter[JSONObject] = TypeAdapter(dict[str, Any])


class OpenWire(Wire):
    """A shape whose unknown fields are kept, so that what a newer server tells is printed as it came."""

    model_config = ConfigDict(frozen=True, extra="allow")


class ServerRow(OpenWire):
    """The server itself: its version, process and state."""

    state: str
    version: str = ""
    pid: int | None = None
    uptime_s: float = 0.0
    problems: tuple[str, ...] = ()
    num_finished: int = 0
    tokens_per_s: float = 0.0


class MemoryRow(OpenWire):
    """What models and MLX take of the memory, in bytes."""

    budget_bytes: int = 0
    held_bytes: int = 0
    active_bytes: int = 0
    cache_bytes: int = 0
    peak_bytes: int = 0


class HostRow(OpenWire):
    """The machine: pressure on its memory, its heat, and the memory that it counts against the server."""

    pressure: str | None = None
    thermal: str | None = None
    footprint_bytes: int | None = None
    kept_awake: bool = False


class DownloadRow(OpenWire):
    """One model that the server fetches, or has fetched."""

    id: str
    model: str = ""
    state: str = ""
    total_bytes: int | None = None
    completed_bytes: int = 0
    bytes_per_s: float | None = None
    eta_s: float | None = None
    error: str | None = None


class LoadRow(OpenWire):
    """How far a load has come; `progress` is from 0 to 1."""

    done_bytes: int | None = None
    total_bytes: int | None = None
    progress: float | None = None
    eta_s: float | None = None


class ModelRow(OpenWire):
    """One configured model and its state."""

    id: str
    kind: str = "text"
    state: str = "unloaded"
    aliases: tuple[str, ...] = ()
    default: bool = False
    pinned: bool = False
    active_requests: int = 0
    queued: int = 0
    max_active: int = 1
    kv_bits: int | None = None
    held_bytes: int = 0
    weights_bytes: int | None = None
    load: LoadRow | None = None
    unload_in_s: float | None = None
    error: str | None = None
    retry_in_s: float | None = None

    @property
    def is_resident(self) -> bool:
        """Whether it takes memory now, or is about to."""
        return self.held_bytes > 0 or self.state not in ("unloaded", "failed")


class RequestRow(OpenWire):
    """One request that waits or runs."""

    id: str
    model: str = ""
    status: str = ""
    position: int | None = None
    age_s: float = 0.0
    num_images: int = 0


class ToolServerRow(OpenWire):
    """An MCP server of models.yaml."""

    name: str
    state: str
    problem: str | None = None
    num_tools: int = 0


class Snapshot(OpenWire):
    """All that `/api/status` tells of a server at one moment."""

    schema_version: Literal[1]
    server: ServerRow
    memory: MemoryRow = MemoryRow()
    host: HostRow = HostRow()
    models: tuple[ModelRow, ...] = ()
    requests: tuple[RequestRow, ...] = ()
    downloads: tuple[DownloadRow, ...] = ()
    mcp_servers: tuple[ToolServerRow, ...] = ()


class LogLineRow(Wire):
    """One line of a server's log; `id` grows."""

    id: int
    text: str


class LogWire(Wire):
    """The newest lines, the oldest of them first."""

    lines: tuple[LogLineRow, ...]


async def read_log(client: OpenAIClient, num_lines: int, after: int) -> tuple[LogLineRow, ...]:
    """The newest lines of the server's log whose id is larger than `after`, the oldest of them first.

    Raises:
        RemoteError: as every method of the client.
    """
    query = httpx.QueryParams({"lines": num_lines, "after": after})
    return read_shape(LogWire, await client.get(f"{_LOGS}?{query}"), client.endpoint.base_url).lines


async def read_status(client: OpenAIClient) -> Snapshot:
    """The server as it is now.

    Raises:
        RemoteError: as every method of the client.
    """
    return read_shape(Snapshot, await client.get(_STATUS), client.endpoint.base_url)


async def command(client: OpenAIClient, verb: str, model: str, *, wait: bool) -> ModelRow:
    """Have a model loaded, unloaded or selected. `wait`: until that is done.

    Raises:
        RemoteError: as every method of the client.
    """
    told = await client.post(_COMMANDS[verb], {"model": model, "wait": wait})
    return read_shape(ModelRow, told, client.endpoint.base_url)


async def events(client: OpenAIClient) -> AsyncGenerator[tuple[str, JSONObject], None]:
    """The server's events as (name, data): `snapshot` first, then what changes, until the server ends the stream.

    Raises:
        RemoteError: as every method of the client.
    """
    async with aclosing(client.events(_EVENTS)) as told:
        async for event in told:
            try:
                yield event.event, _OBJECT.validate_json(event.data)
            except ValidationError:
                server = client.endpoint.base_url
                raise RemoteAnswerBroken(f"The server at {server} sent an event that is no JSON object.") from None
