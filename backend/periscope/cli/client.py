"""A running server, as the commands see it: where it is, whether it is a Periscope, and its answers as core events."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import httpx

from periscope.cli.exits import CommandFailed, ExitCode
from periscope.cli.listen import url_of
from periscope.core import (
    CaptionedImage,
    Finished,
    FinishReason,
    ImagePart,
    JSONObject,
    OutputEvent,
    ReasoningDelta,
    TextDelta,
    Usage,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.errors import AuthenticationFailed, ImageInvalid, ImageSourceRefused, ModelNotFound, PeriscopeError

if TYPE_CHECKING:
    from periscope.config import Config

#: How long a server may take to say that it is there.
PROBE_TIMEOUT_S = 0.5
#: A stream is never silent for longer than `heartbeat_s`, which is 10 s at most.
_STREAM_TIMEOUT = httpx.Timeout(60.0, connect=2.0, write=None)
#: Captions come at once, after the captioner was loaded and has seen every picture.
_WHOLE_TIMEOUT = httpx.Timeout(None, connect=2.0)
#: Codes on the wire that make a difference here; every other error is just told.
_KINDS: Mapping[object, type[PeriscopeError]] = {
    "model_not_found": ModelNotFound,
    "invalid_api_key": AuthenticationFailed,
    "invalid_image": ImageInvalid,
    "image_source_refused": ImageSourceRefused,
    "body_too_large": ImageInvalid,
}


@dataclass(frozen=True, slots=True)
class Server:
    """A running Periscope."""

    url: str
    api_key: str | None = field(repr=False)

    async def chat(self, body: JSONObject) -> AsyncGenerator[OutputEvent, None]:
        """The events of one streamed chat completion, `Finished` last.

        Raises:
            PeriscopeError: what the server said instead.
            CommandFailed: the connection broke.
        """
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
        async with self._post("/v1/chat/completions", body, silence=_STREAM_TIMEOUT) as response:
            chunks = ChunkDecoder()
            async for line in response.aiter_lines():
                if line.startswith("data:"):
                    for event in chunks.feed(line.removeprefix("data:").strip()):
                        yield event
            if not chunks.is_finished:
                raise CommandFailed(f"The server at {self.url} ended the answer before it was complete.")

    async def caption(self, model: str | None, image: ImagePart) -> CaptionedImage:
        """What the server's captioner says of one picture.

        Raises:
            PeriscopeError, CommandFailed: as for `chat`.
        """
        body = {"model": model, "images": [image.url]}
        async with self._post("/api/captions", body, silence=_WHOLE_TIMEOUT) as response:
            answer = await response.aread()
        try:
            (told,) = json.loads(answer)["captions"]
            return CaptionedImage(**{part.name: told[part.name] for part in fields(CaptionedImage)})
        except (ValueError, LookupError, TypeError):
            raise CommandFailed(
                f"The server at {self.url} is of another version: its answer has another shape."
            ) from None

    @asynccontextmanager
    async def _post(self, path: str, body: JSONObject, *, silence: httpx.Timeout) -> AsyncIterator[httpx.Response]:
        headers = {} if self.api_key is None else {"authorization": f"Bearer {self.api_key}"}
        # The environment's proxies are for the world outside; this is a server of ours.
        async with httpx.AsyncClient(base_url=self.url, timeout=silence, trust_env=False) as client:
            try:
                async with client.stream("POST", path, json=body, headers=headers) as response:
                    if response.is_error:
                        raise said_instead(response.status_code, await response.aread())
                    yield response
            except httpx.ConnectError:
                raise CommandFailed(f"No server answers at {self.url}.", ExitCode.NOT_RUNNING) from None
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                raise CommandFailed(f"The connection to {self.url} broke: {reason}.") from None


class ChunkDecoder:
    """Owns what one stream of chat completion chunks has said about its end; the usage comes after the reason."""

    def __init__(self) -> None:
        self.is_finished = False
        self._reason: FinishReason | None = None
        self._vision: VisionUsage | None = None

    def feed(self, data: str) -> list[OutputEvent]:
        """The events of one `data:` line.

        Raises:
            PeriscopeError: the server ended the stream with an error.
        """
        if data == "[DONE]":
            return []
        chunk = json.loads(data)
        if "error" in chunk:
            raise _error(chunk["error"])
        told = chunk.get("periscope") or {}
        self._vision = _vision(told["vision"]) if told.get("vision") else self._vision
        events: list[OutputEvent] = []
        if told.get("status") in set(WaitStatus):
            known = {key: told[key] for key in ("model", "position", "progress", "eta_s") if key in told}
            events.append(Waiting(WaitStatus(told["status"]), **known))
        for choice in chunk["choices"]:
            delta = choice["delta"]
            if delta.get("reasoning_content"):
                events.append(ReasoningDelta(delta["reasoning_content"]))
            if delta.get("content"):
                events.append(TextDelta(delta["content"]))
            if choice.get("finish_reason"):
                self._reason = FinishReason(choice["finish_reason"])
        if chunk.get("usage") and self._reason is not None:
            self.is_finished = True
            events.append(_finished(self._reason, chunk["usage"], self._vision))
        return events


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


def is_periscope(url: str) -> bool:
    """Whether a Periscope answers there within half a second."""
    try:
        response = httpx.get(f"{url}/livez", timeout=PROBE_TIMEOUT_S, trust_env=False)
        answer = response.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False
    is_alive = response.is_success and isinstance(answer, dict) and answer.get("status") == "alive"
    return is_alive and answer.get("name", "periscope") == "periscope"


def said_instead(status: int, body: bytes) -> PeriscopeError:
    """Pure: an answer that is no success, as the error it stands for."""
    try:
        return _error(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return PeriscopeError(f"The server answered with status {status}.")


def _error(told: Any) -> PeriscopeError:
    message = str(told["message"])
    kind = _KINDS.get(told.get("code"), PeriscopeError)
    if kind is AuthenticationFailed:
        message += " This command reads the key from PERISCOPE_SERVER__API_KEY or models.yaml."
    return kind(message)


def _finished(reason: FinishReason, usage: JSONObject, vision: VisionUsage | None) -> Finished:
    counts = Usage(
        num_prompt_tokens=usage["prompt_tokens"],
        num_completion_tokens=usage["completion_tokens"],
        num_cached_tokens=(usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0),
    )
    if reason is FinishReason.LENGTH:
        return Finished(FinishReason.LENGTH, counts, vision)
    if reason is FinishReason.TOOL_CALLS:
        return Finished(FinishReason.TOOL_CALLS, counts, vision)
    return Finished(FinishReason.STOP, counts, vision)


def _vision(told: JSONObject) -> VisionUsage:
    return VisionUsage(**{count.name: told.get(count.name, 0) for count in fields(VisionUsage)})
