"""The settings: every key of models.yaml with its type, default, bounds, unit and meaning. Pure data, frozen.

Python names are the file's keys, except where a key hides its unit (`ttl` is `ttl_s` here). Nothing in this module
reads files, the environment or flags, and nothing here knows what a setting does.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from periscope.config.mcp_schema import McpServerConfig
from periscope.config.params_schema import ModelParams, VariantConfig
from periscope.config.quantities import BYTES, SECONDS
from periscope.config.section import (
    ALLOWED_HOST,
    API_KEY,
    DAY_S,
    FETCH_HOST,
    GIB,
    HOST,
    HUB_ID,
    KEY_HASH,
    KEY_NAME,
    KIB,
    MIB,
    NAME,
    TIB,
    Section,
    setting,
)
from periscope.config.vision_schema import Capabilities, RemoteConfig
from periscope.core import ModelKind, OriginPattern


def _origin(text: str) -> str:
    OriginPattern.parse(text)
    return text


class ModelEntry(Section):
    """One model as the file describes it."""

    name: str = Field(pattern=NAME, max_length=200, description="The model's name for clients. It must be unique.")
    hf_id: str | None = setting(
        None, "Hugging Face repository. Give this, local_path or remote.", pattern=HUB_ID, max_length=200
    )
    local_path: str | None = setting(
        None,
        "Directory of the model, relative to this file, or embedded:text or embedded:captioner.",
        min_length=1,
        max_length=4096,
    )
    revision: str | None = setting(
        None, "Branch, tag or commit of hf_id. If unset, main.", min_length=1, max_length=200
    )
    aliases: tuple[Annotated[str, Field(pattern=NAME, max_length=200)], ...] = setting(
        (), "Further names for it. `default` always means the first text model.", strict=False
    )
    variants: tuple[VariantConfig, ...] = setting(
        (),
        "Further names with sampling of their own, which share its memory: "
        "[{name: qwen:nothink, params: {thinking_budget: 0}}].",
        strict=False,
    )
    warm: tuple[Annotated[str, Field(min_length=1, max_length=MIB)], ...] = setting(
        (),
        "System prompts that are computed, or read from disk, once the model is idle: texts, or @ and a file.",
        strict=False,
        max_length=32,
    )
    preload: bool = setting(False, "Load at start instead of at the first request.")
    pin: bool = setting(False, "Never unload to make room or for idleness.")
    ttl_s: Annotated[float, Field(ge=1, le=365 * DAY_S), SECONDS] | None = setting(
        None, "Unload after this long without work. If unset, idle_unload_secs.", "seconds", alias="ttl"
    )
    remote: RemoteConfig | None = setting(None, "Another server that captions, in place of a model on this machine.")
    kind: Literal["text", "embedding"] | None = setting(
        None, "Whether the model answers (text) or embeds texts (embedding). If unset, its files or its name tell."
    )
    isolated: bool = setting(
        False, "Run the model in a process of its own, to which captioner_share does not apply. Captioners only."
    )
    params: ModelParams = setting(ModelParams(), "How the model is run, and its default sampling.")
    capabilities: Capabilities = setting(Capabilities(), "What the model does with images.")


class ModelConfig(ModelEntry):
    """One model as it is served: its captioner is an entry's `name`, and its `local_path` is absolute or embedded."""

    kind: ModelKind = ModelKind.TEXT  # type: ignore[assignment]  # resolved: captioners are known by who names them


class ServerLimits(Section):
    """What the server accepts from clients."""

    max_body_bytes: Annotated[int, Field(ge=KIB, le=4 * GIB), BYTES] = setting(
        224 * MIB,
        "Size of a request body after decompression. The default holds eight images of 20 MiB in base64.",
        "bytes",
    )
    max_body_bytes_in_flight: Annotated[int, Field(ge=KIB, le=64 * TIB), BYTES] | None = setting(
        None,
        "Bodies over 1 MiB that are read at once, over all requests. More get a 503. If unset, twice max_body_bytes.",
        "bytes",
    )
    max_text_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(
        8 * MIB, "Size of a request body without its images in base64.", "bytes"
    )
    receive_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        10.0, "Longest wait for the rest of a request that a client has begun to send. Then it gets a 408.", "seconds"
    )
    min_receive_rate: Annotated[int, Field(ge=1, le=GIB), BYTES] = setting(
        4 * KIB, "A client that sends at least this much a second is never timed out.", "bytes"
    )
    send_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        30.0,
        "A client that reads none of its answer for this long is disconnected, and its request is cancelled.",
        "seconds",
    )
    max_header_bytes: Annotated[int, Field(ge=KIB, le=MIB), BYTES] = setting(
        64 * KIB, "Size of a request's line and headers. Larger ones get a 431.", "bytes"
    )
    max_headers: int = setting(128, "Headers of a request. More get a 431.", "headers", ge=8, le=10_000)
    max_connections: int = setting(
        512, "Connections that are open at once. Requests on further ones get a 503.", "connections", ge=4, le=100_000
    )
    max_connections_per_client: int = setting(
        256,
        "Of these, connections of one address. Requests on further ones get a 503.",
        "connections",
        ge=2,
        le=100_000,
    )
    max_requests_per_client: int = setting(
        128,
        "Requests that one client, told by its key or else its address, has open at once, streams included. "
        "More get a 503.",
        "requests",
        ge=1,
        le=100_000,
    )
    keep_alive_s: Annotated[float, Field(ge=1, le=3600), SECONDS] = setting(
        75.0, "A connection without a request is closed after this long.", "seconds"
    )
    max_image_bytes_in_flight: Annotated[int, Field(ge=MIB, le=64 * TIB), BYTES] = setting(
        512 * MIB,
        "Images that are decoded and captioned at once, over all requests. As much again may wait; more get a 503.",
        "bytes",
    )
    max_waiting: int = setting(
        10, "Requests that may wait for each model beyond its batch. More get a 503.", "requests", ge=0, le=100_000
    )
    wait_timeout_s: Annotated[float, Field(ge=0.1, le=DAY_S), SECONDS] = setting(
        30.0, "Longest wait for a place in the batch, not counting loads. Then the request gets a 503.", "seconds"
    )

    @property
    def body_bytes_in_flight(self) -> int:
        """`max_body_bytes_in_flight`, or its default, which depends on `max_body_bytes`."""
        return 2 * self.max_body_bytes if self.max_body_bytes_in_flight is None else self.max_body_bytes_in_flight


class RemoteImagesConfig(Section):
    """Images that clients give as http(s) URLs."""

    enabled: bool = setting(False, "Fetch them from public hosts on ports 80 and 443. If false, they are refused.")
    allow_hosts: tuple[Annotated[str, Field(pattern=FETCH_HOST, max_length=300)], ...] = setting(
        (), "Further hosts to fetch from, which may be private: nas.local, 192.168.1.5:8080 or [fd00::5].", strict=False
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=600), SECONDS] = setting(
        20.0, "Longest time for one image with its redirects. A slow server is cut off sooner.", "seconds"
    )
    max_concurrent: int = setting(
        4, "Images of all requests that are fetched at once. More wait.", "images", ge=1, le=64
    )
    max_per_request: int = setting(
        16,
        "Images fetched for one request, not counting those that an earlier request has fetched.",
        "images",
        ge=1,
        le=256,
    )


class McpEndpointConfig(Section):
    """The tools for agents at /mcp, behind the keys of the server."""

    enabled: bool = setting(True, "Serve describe_image, read_text and ask_about_image. Needs the extra mcp.")
    allow: tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...] = setting(
        (),
        "Folders of this machine whose image files agents may name, with all below them, relative to this file.",
        strict=False,
    )


class NamedKeyConfig(Section):
    """One of several API keys. The key itself stands nowhere."""

    name: str = Field(pattern=KEY_NAME, max_length=64, description="What log and status call its requests by.")
    hash: str = Field(pattern=KEY_HASH, description="SHA-256 of the key.", repr=False)


class TLSConfig(Section):
    """HTTPS on the server's host and port."""

    cert: str | None = setting(
        None,
        "PEM file, relative to this one: the server's certificate, then those between it and its authority.",
        min_length=1,
        max_length=4096,
    )
    key: str | None = setting(
        None, "PEM file of the certificate's private key, without a password.", min_length=1, max_length=4096
    )


class ServerConfig(Section):
    """`server`: how Periscope is reached over HTTP, by whom, and what a request may take."""

    host: str = setting(
        "127.0.0.1", "Address to listen on. Any address but loopback needs a key.", pattern=HOST, max_length=253
    )
    port: int = setting(7374, "Port to listen on. 0 takes any free port.", "port", ge=0, le=65_535)
    tcp: bool = setting(True, "Listen on host and port. If false, on uds alone.")
    uds: str | None = setting(
        None,
        "Unix socket to listen on, relative to this file. This user's programs alone can connect to it.",
        min_length=1,
        max_length=4096,
    )
    tls: TLSConfig = setting(TLSConfig(), "HTTPS on the server's host and port.")
    api_key: str | None = setting(
        None,
        "Clients send it as a Bearer token or as x-api-key. The environment is a better place for it than this file.",
        pattern=API_KEY,
        max_length=1000,
        repr=False,
    )
    api_keys: tuple[NamedKeyConfig, ...] = setting(
        (),
        'Further keys, each of them a name and a hash: {name: laptop, hash: "sha256:..."}. '
        "`periscope key new NAME` makes one.",
        strict=False,
    )
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = setting(
        (),
        "Origins of web pages that may call, e.g. http://localhost:* or https://*.example.com. * allows all.",
        strict=False,
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=ALLOWED_HOST)], ...] = setting(
        (), "Host headers that are accepted besides loopback names and server.host.", strict=False
    )
    heartbeat_s: Annotated[float, Field(ge=0.05, le=10), SECONDS] = setting(
        10.0, "A stream that has nothing else to send gets a heartbeat this often.", "seconds"
    )
    always_include_usage: bool = setting(
        False, "Streams end with a usage chunk even if the client did not ask for one."
    )
    keep_awake: bool = setting(True, "No idle sleep of the Mac while a request, a load or a download runs.")
    status_as_comments: bool = setting(
        False, "Heartbeats and wait states are sent as SSE comments instead of chunks with an empty delta."
    )
    metrics: bool = setting(True, "Counters, histograms and gauges for Prometheus at /metrics, behind api_key.")
    tracing: bool = setting(
        False,
        "A trace of each request for an OpenTelemetry collector, by the OTEL_* variables. Needs the extra otel. "
        "OTEL_EXPORTER_OTLP_ENDPOINT alone switches it on, too.",
    )
    anthropic_model: str | None = setting(
        None,
        "Text model that answers for claude-... at /v1/messages, by name or alias. If unset, the default one.",
        pattern=NAME,
        max_length=200,
    )
    mcp_endpoint: McpEndpointConfig = setting(
        McpEndpointConfig(), "The tools for agents at /mcp, behind the keys of the server."
    )
    remote_images: RemoteImagesConfig = setting(RemoteImagesConfig(), "Images that clients give as http(s) URLs.")
    limits: ServerLimits = setting(ServerLimits(), "What the server accepts from clients.")

    @property
    def needs_key(self) -> bool:
        """Whether clients are asked for a key."""
        return self.api_key is not None or bool(self.api_keys)


class MemoryConfig(Section):
    """Memory that models may take."""

    budget: Annotated[int, Field(ge=16 * MIB, le=64 * TIB), BYTES] | None = setting(
        None, "For all models together. If unset, what Metal recommends.", "bytes"
    )
    wired_limit: Annotated[int, Field(ge=16 * MIB, le=64 * TIB), BYTES] | None = setting(
        None, "Memory that macOS must not page out. If unset, what Metal recommends.", "bytes"
    )
    check_requests: bool = setting(True, "Refuse a request that cannot fit into memory before its prompt is computed.")


class CaptionCacheConfig(Section):
    """Captions are kept, so that no image is described twice."""

    persist: bool = setting(True, "Keep captions in a file, so that they survive a restart. If false, in memory only.")
    path: str | None = setting(
        None,
        "The file, relative to this one. If unset, periscope/captions.sqlite3 in $XDG_CACHE_HOME or ~/.cache.",
        min_length=1,
        max_length=4096,
    )
    max_bytes: Annotated[int, Field(ge=MIB, le=GIB), BYTES] = setting(
        64 * MIB, "Size of the captions in memory and in the file. The least recently used are dropped first.", "bytes"
    )


class PromptCacheConfig(Section):
    """KV caches of earlier prompts are kept on disk, so that they survive a restart and an unloaded model."""

    persist: bool = setting(
        True, "Write them when a model is idle, unloaded, or the server stops. If false, in memory only."
    )
    path: str | None = setting(
        None,
        "Their folder, relative to this file. If unset, periscope/prompts in $XDG_CACHE_HOME or ~/.cache.",
        min_length=1,
        max_length=4096,
    )
    max_bytes: Annotated[int, Field(ge=MIB, le=64 * TIB), BYTES] = setting(
        8 * GIB,
        "Size of the files of all models. The least recently used are removed first. 2 GiB of the volume stay free.",
        "bytes",
    )
    write_after_s: Annotated[float, Field(ge=0, le=DAY_S), SECONDS] = setting(
        60.0, "They are written once a model has had no request for so long.", "seconds", alias="write_after"
    )


class ResponsesConfig(Section):
    """Responses of /v1/responses are stored, so that clients can go on from them."""

    persist: bool = setting(True, "Keep them in a file of the state folder. If false, in memory, 64 MiB at most.")
    max_bytes: Annotated[int, Field(ge=MIB, le=64 * GIB), BYTES] = setting(
        256 * MIB,
        "Size of all of them, pictures included. The least recently used are dropped first.",
        "bytes",
    )
    ttl_s: Annotated[float, Field(ge=60, le=3650 * DAY_S), SECONDS] = setting(
        30 * DAY_S, "Those that nobody has gone on from for so long are dropped.", "seconds"
    )


class LogConfig(Section):
    """The server's own log file, which it writes besides its lines on stderr."""

    file: bool = setting(
        True, "Write server.log: in ~/Library/Logs/periscope on a Mac, elsewhere in logs of the state folder."
    )
    max_bytes: Annotated[int, Field(ge=64 * KIB, le=GIB), BYTES] = setting(
        10 * MIB, "At this size a new file begins, and the last one is kept as server.log.1.", "bytes"
    )
    keep: int = setting(5, "Older files that are kept. The oldest is removed first.", "files", ge=1, le=100)


class ConfigFile(Section):
    """The whole of models.yaml, valid by itself."""

    idle_unload_s: Annotated[float, Field(ge=1, le=365 * DAY_S), SECONDS] | None = setting(
        None,
        "Any model is unloaded after this long without work. If unset, none is.",
        "seconds",
        alias="idle_unload_secs",
    )
    captioner_share: float = setting(
        0.15,
        "Share of the GPU's time that captioners and embedding models get while text is generated.",
        "share",
        ge=0.05,
        le=0.95,
    )
    server: ServerConfig = setting(ServerConfig(), "The HTTP server.")
    memory: MemoryConfig = setting(MemoryConfig(), "Memory that models may take.")
    caption_cache: CaptionCacheConfig = setting(
        CaptionCacheConfig(), "Captions are kept, so that no image is described twice."
    )
    prompt_cache: PromptCacheConfig = setting(
        PromptCacheConfig(),
        "KV caches of earlier prompts are kept on disk, so that they survive a restart and an unloaded model.",
    )
    responses: ResponsesConfig = setting(
        ResponsesConfig(), "Responses of /v1/responses are stored, so that clients can go on from them."
    )
    log: LogConfig = setting(LogConfig(), "The server's own log file, which it writes besides its lines on stderr.")
    mcp_servers: tuple[McpServerConfig, ...] = setting(
        (), "MCP servers whose tools are called for requests to /v1/responses that name them.", strict=False
    )
    models: tuple[ModelEntry, ...] = Field(
        strict=False, min_length=1, description="All models. The first text model is the default."
    )
