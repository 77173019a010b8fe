"""A running server, as the commands see it: where it is, whether it is a Periscope, and its answers as core events."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from periscope.cli.address import UNIX, Address, address_in, address_of
from periscope.cli.exits import CommandFailed, ExitCode
from periscope.core import CaptionedImage, DescribedFile, FilePart, ImagePart, JSONObject, OutputEvent
from periscope.errors import (
    AuthenticationFailed,
    DocumentInvalid,
    ImageInvalid,
    ImageNotFetched,
    ImageSourceRefused,
    ModelNotFound,
    ModelNotOnDisk,
    ModelPinned,
    ModelUnavailable,
    PeriscopeError,
    RemoteRefused,
    ServerBusy,
    VideoInvalid,
)
from periscope.remote import (
    Endpoint,
    ListedModel,
    LogLineRow,
    ModelRow,
    OpenAIClient,
    Snapshot,
    Timeouts,
    caption,
    command,
    describe_file,
    events,
    flush_captions,
    kept_captions,
    read_log,
    read_status,
)
from periscope.service import RunningServer, StateFolder, read_server

if TYPE_CHECKING:
    from periscope.config import Config

#: How long a server may take to say that it is there.
PROBE_TIMEOUT_S = 0.5
#: A stream is never silent for longer than `heartbeat_s`, which is 10 s at most.
_STREAM_TIMEOUTS = Timeouts(connect_s=2.0, silence_s=60.0)
#: Captions come at once, after the captioner was loaded and has seen every picture.
_WHOLE_TIMEOUTS = Timeouts(connect_s=2.0, silence_s=None)
#: Codes on the wire that make a difference here; every other error is just told.
_KINDS: Mapping[str | None, type[PeriscopeError]] = {
    "model_not_found": ModelNotFound,
    "invalid_api_key": AuthenticationFailed,
    "invalid_image": ImageInvalid,
    "invalid_document": DocumentInvalid,
    "invalid_video": VideoInvalid,
    "image_source_refused": ImageSourceRefused,
    "image_not_fetched": ImageNotFetched,
    "body_too_large": ImageInvalid,
    "server_busy": ServerBusy,
    "model_pinned": ModelPinned,
    "model_not_on_disk": ModelNotOnDisk,
    "model_unavailable": ModelUnavailable,
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running Periscope: where it listens, and what it asks of its clients."""

    url: str
    api_key: str | None = field(repr=False)
    certificate: Path | None = None

    async def chat(self, body: JSONObject) -> AsyncGenerator[OutputEvent, None]:
        """The events of one streamed chat completion, `Finished` last.

        Raises:
            PeriscopeError: what the server said instead, or why it said nothing.
        """
        async with self._client(_STREAM_TIMEOUTS) as client, aclosing(client.stream_chat(body)) as events:
            async for event in events:
                yield event

    async def caption(self, model: str | None, image: ImagePart, *, describe: bool = True) -> CaptionedImage:
        """What the server's captioner says of one picture, and the text in it; that alone unless `describe`.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_WHOLE_TIMEOUTS) as client:
            (captioned,) = await caption(client, model, (image.url,), describe=describe)
        return captioned

    async def describe_file(self, model: str | None, file: FilePart) -> DescribedFile:
        """What the text model reads in place of a file.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_WHOLE_TIMEOUTS) as client:
            return await describe_file(client, model, file)

    async def kept_captions(self, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
        """The state of the server's caption cache, and the captions used last whose keys begin so.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await kept_captions(client, limit, key)

    async def log_lines(self, num_lines: int, after: int = 0) -> tuple[LogLineRow, ...]:
        """The newest lines of the server's log whose id is larger than `after`.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await read_log(client, num_lines, after)

    async def page(self) -> str | None:
        """The address of the server's page for browsers; None if it has none.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            try:
                told = await client.get("../")
            except RemoteRefused:
                return None
        return f"{self.url}/" if told.lstrip()[:14].lower() == b"<!doctype html" else None

    async def flush_captions(self) -> tuple[int, bool]:
        """Have the server drop all captions: how many there were, and whether its file holds none of them any more.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await flush_captions(client)

    async def status(self) -> Snapshot:
        """All that the server tells of itself.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await read_status(client)

    async def models(self) -> tuple[ListedModel, ...]:
        """The text models that clients may name, the default one first.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await client.list_models()

    async def needs_key(self) -> bool:
        """Whether its models are shown to those alone who send a key.

        Raises:
            PeriscopeError: as for `chat`.
        """
        try:
            await replace(self, api_key=None).models()
        except AuthenticationFailed:
            return True
        return False

    async def command(self, verb: str, model: str, *, wait: bool) -> ModelRow:
        """Have a model loaded, unloaded or selected; its row afterwards.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_WHOLE_TIMEOUTS) as client:
            return await command(client, verb, model, wait=wait)

    async def events(self) -> AsyncGenerator[tuple[str, JSONObject], None]:
        """What happens in the server, as (name, data), `snapshot` first.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client, aclosing(events(client)) as told:
            async for event in told:
                yield event

    @asynccontextmanager
    async def _client(self, timeouts: Timeouts) -> AsyncIterator[OpenAIClient]:
        with as_raised_here():
            to = Address(self.url, self.certificate)
            endpoint = Endpoint(f"{to.base_url}/v1", self.api_key, timeouts, pinned=to.certificate, uds=to.uds)
            async with OpenAIClient(endpoint) as client:
                yield client


@contextmanager
def as_raised_here() -> Iterator[None]:
    """Around requests: a refusal is raised as the error that it stands for, so that a command ends the same way.

    Raises:
        PeriscopeError: of the class that the refusal's code names; else the refusal itself.
    """
    try:
        yield
    except RemoteRefused as refusal:
        kind = _KINDS.get(refusal.code)
        if kind is None:
            raise
        message = refusal.said or refusal.message
        if kind is AuthenticationFailed:
            message += " Commands read the key from PERISCOPE_SERVER__API_KEY, models.yaml or the token of this server."
        raise kind(message) from None


def find_server(asked_url: str | None, config: Config, env: Mapping[str, str] | None = None) -> Server | None:
    """The running Periscope; None if none runs. Blocks for a moment.

    Looked for at `--url`, else `PERISCOPE_URL`, else where `server.json` says, else where the configuration says. What
    has no scheme is read as `http://`.

    Raises:
        CommandFailed: a server was asked for by its URL, and there is no Periscope (exit code 3).
    """
    env = os.environ if env is None else env
    running = read_server(StateFolder(config.places.state))
    named = asked_url or env.get("PERISCOPE_URL")
    known = [*([address_in(running)] if running else []), address_of(config.server)]
    if named:
        has_scheme = "://" in named or named.startswith(UNIX)
        url = (named if has_scheme else f"http://{named}").rstrip("/").removesuffix("/v1")
        known = [next((each for each in known if each.url == url), Address(url))]
    for address in dict.fromkeys(known):
        if is_periscope(address):
            return Server(address.url, key_for(config, address.url), address.certificate)
    if named:
        raise _is_distrusted(named) if _has_unknown_certificate(known[0]) else _not_running(named)
    return None


def running_elsewhere(config: Config) -> Address | None:
    """Where the Periscope of `server.json` answers, if that is not the configured address. Blocks for a moment."""
    running = read_server(StateFolder(config.places.state))
    address = None if running is None else address_in(running)
    if address is None or address.url == address_of(config.server).url:
        return None
    return address if is_periscope(address) else None


def key_for(config: Config, url: str) -> str | None:
    """The configured key, else the token, which only the server that wrote `server.json` is sent. May block."""
    return config.server.api_key or _token_of(read_server(StateFolder(config.places.state)), url)


def _token_of(running: RunningServer | None, url: str) -> str | None:
    if running is None or running.token_path is None or running.url != url:
        return None
    try:
        return Path(running.token_path).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def require_server(asked_url: str | None, config: Config) -> Server:
    """Find the server as `find_server` does, for commands that are nothing without one.

    Raises:
        CommandFailed: none runs (exit code 3).
    """
    server = find_server(asked_url, config)
    if server is None:
        raise _not_running(address_of(config.server).url)
    return server


def _not_running(url: str) -> CommandFailed:
    return CommandFailed(f"No Periscope answers at {url}. Start one with `periscope serve`.", ExitCode.NOT_RUNNING)


def _is_distrusted(url: str) -> CommandFailed:
    return CommandFailed(
        f"The server at {url} has a certificate that is not commonly trusted, so nothing was sent. Commands trust a "
        "certificate of its owner's own making only on the server's machine, with the PERISCOPE_HOME of the server."
    )


def _has_unknown_certificate(address: Address) -> bool:
    """Whether the answer failed because of the server's certificate. Blocks."""
    try:
        address.get("/livez", PROBE_TIMEOUT_S)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        return "CERTIFICATE_VERIFY_FAILED" in str(error)
    return False


def is_periscope(address: Address, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a Periscope answers there in time. Blocks."""
    try:
        response = address.get("/livez", timeout_s)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError):
        return False
    is_alive = response.is_success and isinstance(answer, dict) and answer.get("status") == "alive"
    return is_alive and answer.get("name", "periscope") == "periscope"
