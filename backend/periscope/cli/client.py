"""A running server, as the commands see it: where it is, whether it is a Periscope, and its answers as core events."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.listen import url_of
from periscope.core import CaptionedImage, ImagePart, JSONObject, OutputEvent
from periscope.errors import (
    AuthenticationFailed,
    ImageInvalid,
    ImageNotFetched,
    ImageSourceRefused,
    ModelNotFound,
    PeriscopeError,
    RemoteRefused,
    ServerBusy,
)
from periscope.remote import Endpoint, OpenAIClient, Timeouts, caption, flush_captions, kept_captions

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
    "image_source_refused": ImageSourceRefused,
    "image_not_fetched": ImageNotFetched,
    "body_too_large": ImageInvalid,
    "server_busy": ServerBusy,
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running Periscope."""

    url: str
    api_key: str | None = field(repr=False)

    async def chat(self, body: JSONObject) -> AsyncGenerator[OutputEvent, None]:
        """The events of one streamed chat completion, `Finished` last.

        Raises:
            PeriscopeError: what the server said instead, or why it said nothing.
        """
        async with self._client(_STREAM_TIMEOUTS) as client, aclosing(client.stream_chat(body)) as events:
            async for event in events:
                yield event

    async def caption(self, model: str | None, image: ImagePart) -> CaptionedImage:
        """What the server's captioner says of one picture.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_WHOLE_TIMEOUTS) as client:
            (captioned,) = await caption(client, model, (image.url,))
        return captioned

    async def kept_captions(self, limit: int, key: str) -> tuple[JSONObject, list[JSONObject]]:
        """The state of the server's caption cache, and the captions used last whose keys begin so.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await kept_captions(client, limit, key)

    async def flush_captions(self) -> tuple[int, bool]:
        """Have the server drop all captions: how many there were, and whether its file holds none of them any more.

        Raises:
            PeriscopeError: as for `chat`.
        """
        async with self._client(_STREAM_TIMEOUTS) as client:
            return await flush_captions(client)

    @asynccontextmanager
    async def _client(self, timeouts: Timeouts) -> AsyncIterator[OpenAIClient]:
        with as_raised_here():
            async with OpenAIClient(Endpoint(f"{self.url}/v1", self.api_key, timeouts)) as client:
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
            message += " This command reads the key from PERISCOPE_SERVER__API_KEY or models.yaml."
        raise kind(message) from None


def find_server(asked_url: str | None, config: Config, env: Mapping[str, str] | None = None) -> Server | None:
    """The running Periscope: at `--url`, else `PERISCOPE_URL`, else where the configuration says; None if none runs.

    Raises:
        CommandFailed: a server was asked for by its URL, and there is no Periscope (exit code 3).
    """
    env = os.environ if env is None else env
    named = asked_url or env.get("PERISCOPE_URL")
    url = (named or url_of(config.server.host, config.server.port)).rstrip("/").removesuffix("/v1")
    if is_periscope(url):
        return Server(url, config.server.api_key)
    if named:
        raise CommandFailed(f"No Periscope answers at {url}. Start one with `periscope serve`.", ExitCode.NOT_RUNNING)
    return None


def is_periscope(url: str, timeout_s: float = PROBE_TIMEOUT_S) -> bool:
    """Whether a Periscope answers there in time. Blocks."""
    try:
        response = httpx.get(f"{url}/livez", timeout=timeout_s, trust_env=False)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    is_alive = response.is_success and isinstance(answer, dict) and answer.get("status") == "alive"
    return is_alive and answer.get("name", "periscope") == "periscope"
