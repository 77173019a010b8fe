"""One OpenAI-compatible server as its client sees it: chats, streamed or whole, and the model listing. Event loop."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import httpx

from periscope.core import JSONObject
from periscope.errors import (
    ConfigError,
    ConnectionFault,
    RemoteAnswerBroken,
    RemoteError,
    RemoteTimedOut,
    RemoteUnreachable,
)
from periscope.remote.chat_answers import ChatStreamDecoder, read_answer
from periscope.remote.endpoint import pinned_context
from periscope.remote.refusals import refusal_of
from periscope.remote.sse import ServerSentEvent, SSEDecoder
from periscope.remote.wire import ModelsWire, read_wire

if TYPE_CHECKING:
    from types import TracebackType

    from periscope.core import OutputEvent
    from periscope.remote.chat_answers import ChatAnswer
    from periscope.remote.endpoint import Endpoint

#: Of an error's body: enough for every message, and little enough for a page that never ends.
_MAX_REFUSAL_BYTES = 64 * 1024
_REFUSAL_TIMEOUT_S = 5.0
#: A stream's last bytes follow `[DONE]` at once. Reading them keeps the connection for the next request.
_DRAIN_TIMEOUT_S = 0.5

_CHAT = "chat/completions"
_STREAMED: JSONObject = {"stream": True, "stream_options": {"include_usage": True}}
#: When a request must have its whole answer, in the event loop's time; None = no matter when.
_Deadline: TypeAlias = float | None


@dataclass(frozen=True, slots=True)
class ListedModel:
    """One entry of a server's model listing.

    Attributes:
        name: its id for requests.
        context_length: in tokens; None = the server does not say.
        aliases: other names for it; empty where the server tells none.
        input_modalities: such as `text` and `image`; empty where the server tells none.
    """

    name: str
    context_length: int | None
    aliases: tuple[str, ...] = ()
    input_modalities: tuple[str, ...] = ()


class OpenAIClient:
    """Owns the connections to one server. Any number of requests may run at once, inside the context.

    A request that is cancelled, or whose stream is closed early, closes its connection, which is how the server learns
    of it. Redirects are refused, and the environment's proxies are not used: only the named server gets the key.

    Raises:
        ConfigError: the endpoint's `ca_file` cannot be used.

    Every method raises, among other errors of its own:
        RemoteUnreachable: no connection could be made.
        RemoteTimedOut: one of the endpoint's time-outs was over.
        RemoteRefused: the server answered with an error, or ended its stream with one.
        RemoteAnswerBroken: the connection broke, or the answer is not what the protocol says.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        times = endpoint.timeouts
        headers = {"accept-encoding": "identity"}  # whatever is compressed cannot be bounded before it is expanded
        if endpoint.api_key is not None:
            headers["authorization"] = f"Bearer {endpoint.api_key}"
        self._http = httpx.AsyncClient(
            headers=headers,
            timeout=httpx.Timeout(times.silence_s, connect=times.connect_s, pool=None),
            transport=httpx.AsyncHTTPTransport(
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
                verify=_trust(endpoint),
                uds=None if endpoint.uds is None else str(endpoint.uds),
                trust_env=False,
            ),
            trust_env=False,
        )

    @property
    def endpoint(self) -> Endpoint:
        """The server that this client asks."""
        return self._endpoint

    async def __aenter__(self) -> Self:
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Close all connections, for an owner that does not use the context; requests under way fail."""
        await self._http.aclose()

    async def stream_chat(self, body: Mapping[str, Any]) -> AsyncGenerator[OutputEvent, None]:
        """The events of one chat completion as they come, `Finished` last. Close it (`aclosing`) to cancel the request.

        Deltas carry no log-probabilities. The usage is zeros where the server does not count.
        """
        deadline = self._deadline()
        decoder = ChatStreamDecoder(self._server)
        async with self._answered(
            "POST", _CHAT, {**self._endpoint.extra_body, **body, **_STREAMED}, deadline
        ) as answer:
            self._check_is_stream(answer)
            async with aclosing(self._chunks(answer, deadline)) as chunks:
                async with aclosing(_data_of(self._bounded(chunks))) as told:
                    async for data in told:
                        for event in decoder.feed(data):
                            yield event
                yield decoder.finish()
                await _drain(chunks)

    async def chat(self, body: Mapping[str, Any]) -> ChatAnswer:
        """One chat completion, whole."""
        fields = {**self._endpoint.extra_body, **body, "stream": False}
        return read_answer(await self._whole("POST", _CHAT, fields), self._server)

    async def list_models(self) -> tuple[ListedModel, ...]:
        """The models the server offers, in its order."""
        listing = read_wire(ModelsWire, await self._whole("GET", "models"), self._server)
        return tuple(
            ListedModel(
                model.id,
                model.context_length or model.max_model_len,
                tuple(model.aliases or ()),
                tuple(model.input_modalities or ()),
            )
            for model in listing.data or ()
        )

    async def get(self, path: str) -> bytes:
        """The answer's body, of a route that is the server's own. `path`: relative to the base URL."""
        return await self._whole("GET", path)

    async def post(self, path: str, body: Mapping[str, Any]) -> bytes:
        """The answer's body, of a route that is the server's own. `path`: relative to the base URL."""
        return await self._whole("POST", path, body)

    async def events(self, path: str) -> AsyncGenerator[ServerSentEvent, None]:
        """The events of a stream that is the server's own, as they come. `path`: relative to the base URL."""
        decoder = SSEDecoder()
        async with self._answered("GET", path, None, None) as answer:
            self._check_is_stream(answer)
            async with aclosing(self._chunks(answer, None)) as chunks:
                async for chunk in chunks:
                    for event in decoder.feed(chunk):
                        yield event

    async def delete(self, path: str) -> bytes:
        """Send a DELETE, which has no body; otherwise as `post`."""
        return await self._whole("DELETE", path)

    @property
    def _server(self) -> str:
        return self._endpoint.base_url

    def _deadline(self) -> _Deadline:
        total_s = self._endpoint.timeouts.total_s
        return None if total_s is None else asyncio.get_running_loop().time() + total_s

    async def _whole(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        deadline = self._deadline()
        whole, max_bytes = bytearray(), self._endpoint.max_answer_bytes
        async with (
            self._answered(method, path, body, deadline) as answer,
            aclosing(self._chunks(answer, deadline)) as chunks,
        ):
            await _read_into(whole, chunks, max_bytes)
        if len(whole) > max_bytes:
            raise self._too_long()
        return bytes(whole)

    def _too_long(self) -> RemoteAnswerBroken:
        num_bytes = self._endpoint.max_answer_bytes
        return RemoteAnswerBroken(f"The answer of the server at {self._server} has over {num_bytes} bytes.")

    @asynccontextmanager
    async def _answered(
        self, method: str, path: str, body: Mapping[str, Any] | None, deadline: _Deadline
    ) -> AsyncIterator[httpx.Response]:
        """An answer of which only the headers are read, and which is a success."""
        request = self._http.build_request(method, self._endpoint.url_of(path), json=body)
        with self._transport_errors(has_begun=False):
            async with asyncio.timeout_at(deadline):
                answer = await self._http.send(request, stream=True)
        async with aclosing(answer):
            if not answer.is_success:
                raise refusal_of(self._server, answer.status_code, answer.headers, await self._reason(answer))
            yield answer

    async def _reason(self, answer: httpx.Response) -> bytes:
        """The beginning of an error's body, or as much of it as comes: the status is what counts."""
        read = bytearray()
        deadline = asyncio.get_running_loop().time() + _REFUSAL_TIMEOUT_S
        with suppress(RemoteError):
            async with aclosing(self._chunks(answer, deadline)) as chunks:
                await _read_into(read, chunks, _MAX_REFUSAL_BYTES)
        return bytes(read)

    async def _chunks(self, answer: httpx.Response, deadline: _Deadline) -> AsyncGenerator[bytes, None]:
        """The body as it comes. The time-out covers the waits for it, not what the reader does in between."""
        async with aclosing(answer.aiter_bytes()) as chunks:  # type: ignore[type-var]  # it is a generator
            while True:
                with self._transport_errors(has_begun=True):
                    async with asyncio.timeout_at(deadline):
                        chunk = await anext(chunks, None)
                if chunk is None:
                    return
                yield chunk

    async def _bounded(self, chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
        """The chunks, up to the bound on an answer. A stream's framing and heartbeats count, too."""
        num_bytes = 0
        async for chunk in chunks:
            num_bytes += len(chunk)
            if num_bytes > self._endpoint.max_answer_bytes:
                raise self._too_long()
            yield chunk

    @contextmanager
    def _transport_errors(self, *, has_begun: bool) -> Iterator[None]:
        times = self._endpoint.timeouts
        try:
            yield
        except httpx.ConnectTimeout:
            raise RemoteTimedOut(f"The server at {self._server} did not answer within {times.connect_s} s.") from None
        except httpx.TimeoutException:
            raise RemoteTimedOut(f"The server at {self._server} was silent for {times.silence_s} s.") from None
        except TimeoutError:
            raise RemoteTimedOut(f"The server at {self._server} took longer than {times.total_s} s.") from None
        except httpx.ConnectError as error:
            fault = _fault_of(error)
            reason = "connection refused" if fault is ConnectionFault.REFUSED else _reason_of(error)
            raise RemoteUnreachable(f"No server answers at {self._server} ({reason}).", fault=fault) from None
        except httpx.HTTPError as error:
            raise RemoteAnswerBroken(
                f"The connection to {self._server} broke: {_reason_of(error)}.", has_begun=has_begun
            ) from None

    def _check_is_stream(self, answer: httpx.Response) -> None:
        """Some servers name no type; one that names another does not stream."""
        kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in ("", "text/event-stream"):
            raise RemoteAnswerBroken(f"The server at {self._server} sent {kind[:80]} where a stream was asked for.")


def _trust(endpoint: Endpoint) -> ssl.SSLContext | bool:
    """True = the authorities that httpx trusts by itself. Plain HTTP needs none, and reading them takes 0.2 s."""
    if endpoint.base_url.startswith("http:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    file = endpoint.pinned or endpoint.ca_file
    if file is None:
        return True
    try:
        return pinned_context(file) if endpoint.pinned else ssl.create_default_context(cafile=str(file))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "it holds no PEM"
        what = "certificate" if endpoint.pinned else "CA file"
        raise ConfigError((f"The {what} {file} cannot be used: {reason}.",)) from None


def _fault_of(error: BaseException) -> ConnectionFault:
    """What stands at the root of the error that httpx raised."""
    cause: BaseException | None = error
    while cause is not None:
        match cause:
            case ConnectionRefusedError():
                return ConnectionFault.REFUSED
            case socket.gaierror():
                return ConnectionFault.NAME
            case ssl.SSLError():
                return ConnectionFault.TLS
        cause = cause.__cause__ or cause.__context__
    return ConnectionFault.OTHER


async def _data_of(chunks: AsyncIterator[bytes]) -> AsyncGenerator[str, None]:
    """The data of each event up to `[DONE]`, or to the end of a stream that has none."""
    decoder = SSEDecoder()
    async for chunk in chunks:
        for event in decoder.feed(chunk):
            if event.data == "[DONE]":
                return
            if event.data:
                yield event.data


async def _drain(chunks: AsyncIterator[bytes]) -> None:
    """Reads what follows the end. Nothing that happens here can spoil an answer that is complete."""
    with suppress(RemoteError, TimeoutError):
        async with asyncio.timeout(_DRAIN_TIMEOUT_S):
            async for _ in chunks:
                pass


async def _read_into(read: bytearray, chunks: AsyncIterator[bytes], max_bytes: int) -> None:
    """At most this much and one chunk."""
    async for chunk in chunks:
        read += chunk
        if len(read) > max_bytes:
            break


def _reason_of(error: httpx.HTTPError) -> str:
    return str(error).rstrip(".") or type(error).__name__
