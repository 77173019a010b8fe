"""What the API's tests drive it with: backends that play a script, and a raw ASGI client that can leave."""

from __future__ import annotations

import asyncio
import functools
import json
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeAlias

import httpx

from periscope.api import AccessKeys, ApiSettings, create_app
from periscope.api.backend import MetricsBackend
from periscope.captions.cache import CacheStats, Flushed
from periscope.captions.caption import Caption
from periscope.captions.kept import KeptCaption
from periscope.captions.store import StoreState
from periscope.core import (
    AnswerEvent,
    CaptionedImage,
    ConfigChanges,
    DefaultParam,
    DescribedFile,
    DownloadCommand,
    EmbeddingRequest,
    Embeddings,
    FilePart,
    Finished,
    FinishReason,
    GenerationRequest,
    ImagePart,
    McpProgress,
    McpReply,
    McpRequest,
    ModelCard,
    ModelFiles,
    ModelKind,
    ModelState,
    OutputEvent,
    TextDelta,
    TokenizedText,
    TokenText,
    ToolCall,
    ToolCallDelta,
    ToolCallStart,
    Usage,
    VisionMode,
)
from periscope.serving.server_tools import ServerTools
from periscope.status import (
    DownloadStatus,
    HostStatus,
    MemoryStatus,
    ModelStatus,
    RequestStatus,
    ServerIdentity,
    ServerStatus,
    StatusEvent,
)

if TYPE_CHECKING:
    from starlette.applications import Starlette

P = ParamSpec("P")
#: A test that has not ended by then hangs.
PATIENCE_S = 60.0

CARD = ModelCard(
    name="org/text",
    aliases=("small", "tiny/alias"),
    created=1_700_000_000,
    context_length=4096,
    vision=VisionMode.PROXY,
    has_tools=True,
    has_reasoning=False,
    is_batched=True,
    state=ModelState.READY,
    max_running=16,
    chat_template="{{ messages }}",
    files=ModelFiles(context_length=32768, model_type="qwen3", quantization="4bit", weights_bytes=2_000_000_000),
    sampling={"temperature": DefaultParam(0.6, "generation_config.json")},
    kv_bits=8,
)
KEPT = KeptCaption("caption/ab12/cd34", Caption("A red circle.", 5, 70), created_at=1.5, used_at=2.25)
USAGE = Usage(
    num_prompt_tokens=11,
    num_completion_tokens=4,
    num_cached_tokens=3,
    num_reasoning_tokens=2,
    num_accepted_tokens=1,
    num_rejected_tokens=5,
)
#: A whole character, and half of one.
TOKENIZED = TokenizedText((TokenText(5, "a", b"a"), TokenText(9, "\ufffd", b"\xc3")), 4096)
#: 1, -0.5 and 0.1 in float32.
VECTOR = struct.pack("<3f", 1.0, -0.5, 0.1)
FINISHED = Finished(FinishReason.STOP, USAGE)
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
STREAM = HELLO | {"stream": True}
#: Longer than any test waits, so that only the events of the test decide.
LONG_S = 1000.0
SHORT_S = 0.01


def in_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Runs a test in an event loop of its own, which must hold no other task when the test has ended.

    It fails when the loop has run for `PATIENCE_S`: time in which the process is stopped or waits outside of the loop,
    such as for a server that starts, is not the test's.
    """

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        async def guarded() -> None:
            loop = asyncio.get_running_loop()

            def wait_on(num_seconds: float) -> None:
                if num_seconds > 0:
                    loop.call_later(1, wait_on, num_seconds - 1)
                else:
                    limit.reschedule(loop.time())

            async with asyncio.timeout(None) as limit:
                wait_on(PATIENCE_S)
                await test(*args, **kwargs)
            assert asyncio.all_tasks() == {asyncio.current_task()}

        asyncio.run(guarded())

    return run


@dataclass
class Gate:
    """A place in a script where the backend waits until the test lets it on."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def passed(self) -> None:
        self.reached.set()
        await self.opened.wait()


def raise_it(error: BaseException) -> NoReturn:
    raise error


Step: TypeAlias = OutputEvent | Gate | BaseException


class FakeTools:
    """Plays its script for every request of an agent; the reply tells the request's id."""

    def __init__(self, *script: McpProgress | McpReply | Gate | BaseException) -> None:
        self.script = script
        self.requests: list[McpRequest] = []
        self.num_open = 0

    async def answer(self, request: McpRequest) -> AsyncGenerator[McpProgress | McpReply, None]:
        self.requests.append(request)
        self.num_open += 1
        try:
            for step in self.script:
                match step:
                    case Gate():
                        await step.passed()
                    case BaseException():
                        raise_it(step)
                    case _:
                        yield step
            told = {"jsonrpc": "2.0", "id": request.message["id"], "result": {}}
            yield McpReply(200, json.dumps(told).encode())
        finally:
            self.num_open -= 1


@dataclass
class FakeHealth:
    """As serving/'s own, by structure."""

    status: str = "ready"
    models: Mapping[str, str] = field(default_factory=lambda: {"org/text": "ready"})
    problems: tuple[str, ...] = ()
    is_ready: bool = True
    is_healthy: bool = True
    num_running: int = 0


def called(index: int, call: ToolCall, choice: int = 0) -> tuple[OutputEvent, ...]:
    """The events of a call whose arguments come in two pieces."""
    pieces = (call.arguments[:1], call.arguments[1:])
    return (
        ToolCallStart(index, call.id, call.name, choice),
        *(ToolCallDelta(index, piece, choice) for piece in pieces),
    )


class FakeBackend:
    """Plays its script for every request, then cleans up (behind a gate, if it has one)."""

    def __init__(self, *script: Step, cleanup: Gate | None = None) -> None:
        self.script = script or (TextDelta("Hi"), FINISHED)
        self.cards: tuple[ModelCard, ...] = (CARD,)
        self.reading: FakeHealth | Exception = FakeHealth()
        self.requests: list[GenerationRequest] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self.num_open = 0
        self.closed = asyncio.Event()
        self.saw: list[type[BaseException]] = []
        self._cleanup = cleanup
        self.captioned: tuple[str, tuple[ImagePart, ...]] | None = None
        self.read_images: tuple[str, tuple[ImagePart, ...]] | None = None
        self.described: tuple[str, tuple[FilePart | ImagePart, ...]] | None = None
        self.tokenized: list[tuple[str, str, bool]] = []
        self.detokenized: list[tuple[str, tuple[int, ...]]] = []
        self.embedded: list[EmbeddingRequest] = []

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        self.requests.append(request)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        self.num_open += 1
        try:
            for step in self.script:
                match step:
                    case Gate():
                        await step.passed()
                    case BaseException():
                        raise_it(step)
                    case _:
                        yield step
        except BaseException as error:
            self.saw.append(type(error))
            raise
        finally:
            if self._cleanup is not None:
                await self._cleanup.passed()
            self.num_open -= 1
            self.closed.set()

    def answer(self, request: GenerationRequest, servers: ServerTools) -> AsyncGenerator[AnswerEvent, None]:
        assert servers == ServerTools()
        return self.stream(request)

    async def tokenize(self, model: str, text: str, *, adds_special_tokens: bool) -> TokenizedText:
        self.tokenized.append((model, text, adds_special_tokens))
        return TOKENIZED

    async def tokenize_chat(self, request: GenerationRequest) -> TokenizedText:
        self.requests.append(request)
        return TOKENIZED

    async def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        self.detokenized.append((model, tuple(token_ids)))
        return "text of tokens"

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        self.embedded.append(request)
        task = asyncio.current_task()
        assert task is not None
        self.tasks.append(task)
        for step in self.script:
            if isinstance(step, Gate):
                try:
                    await step.passed()
                except asyncio.CancelledError:
                    self.saw.append(asyncio.CancelledError)
                    raise
        return Embeddings(tuple(VECTOR for _ in request.inputs), 7)

    async def describe_files(self, model: str, files: tuple[FilePart | ImagePart, ...]) -> tuple[DescribedFile, ...]:
        self.described = (model, files)
        return tuple(DescribedFile(f"[Document 1]\nfile {n}", 2, 1) for n, _ in enumerate(files, 1))

    async def caption(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        self.captioned = (model, images)
        for step in self.script:
            match step:
                case Gate():
                    await step.passed()
                case BaseException():
                    raise_it(step)
                case _:
                    pass
        return tuple(CaptionedImage(f"image {n}", None, 4, 3, "eyes") for n, _ in enumerate(images, 1))

    async def read(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        self.read_images = (model, images)
        return tuple(CaptionedImage(None, None, 4, 3, "", verbatim=f"text {n}") for n, _ in enumerate(images, 1))

    @property
    def default_model(self) -> str:
        return self.cards[0].name

    def models(self) -> tuple[ModelCard, ...]:
        return self.cards

    def health(self) -> FakeHealth:
        if isinstance(self.reading, Exception):
            raise self.reading
        return self.reading


ROW = ModelStatus(
    name="org/text",
    kind=ModelKind.TEXT,
    state=ModelState.READY,
    aliases=("small",),
    is_default=True,
    max_running=16,
)
WAITER = RequestStatus(id="chatcmpl-1", model="org/text", status="queued", age_s=1.5, position=2)
DOWNLOAD = DownloadStatus(
    id="dl-1",
    model="org/Text-4bit",
    revision=None,
    state="downloading",
    total_bytes=1000,
    completed_bytes=400,
    bytes_per_s=60.12345,
    eta_s=10.0,
    warning=None,
    error=None,
    created_at=1764383836.25,
)
SNAPSHOT = ServerStatus(
    state="ready",
    identity=ServerIdentity("1.2.3", "9f3c", "launchd"),
    pid=7,
    uptime_s=60.0,
    problems=(),
    memory=MemoryStatus(budget_bytes=100, held_bytes=40, active_bytes=30, cache_bytes=5, peak_bytes=50),
    host=HostStatus("normal", "nominal", 60, is_kept_awake=True),
    models=(ROW,),
    requests=(WAITER,),
    downloads=(DOWNLOAD,),
    num_finished=3,
    tokens_per_s=12.5,
)


class FakeControl:
    """Remembers commands and answers each with its script's last step; plays the script as events."""

    def __init__(self, *script: StatusEvent | Gate | Exception) -> None:
        self.script = script or (SNAPSHOT,)
        self.commands: list[tuple[Any, ...]] = []
        self.num_open = 0
        self.num_told = 0
        self.saw: list[type[BaseException]] = []

    def status(self) -> ServerStatus:
        return SNAPSHOT

    async def events(self) -> AsyncGenerator[StatusEvent, None]:
        self.num_open += 1
        try:
            for step in self.script:
                match step:
                    case Gate():
                        await step.passed()
                    case Exception():
                        raise_it(step)
                    case _:
                        self.num_told += 1
                        yield step
        except BaseException as error:
            self.saw.append(type(error))
            raise
        finally:
            self.num_open -= 1

    def requests(self) -> tuple[RequestStatus, ...]:
        return SNAPSHOT.requests

    async def captions(self, limit: int, prefix: str) -> tuple[CacheStats, list[KeptCaption]]:
        self._take("captions", limit, prefix)
        return CacheStats(2, 1, 1, 600, 1024, Path("/c/captions.sqlite3"), StoreState.OPEN), [KEPT]

    async def flush_captions(self) -> Flushed:
        self._take("flush_captions")
        return Flushed(3, is_written=True)

    def downloads(self) -> tuple[DownloadStatus, ...]:
        return SNAPSHOT.downloads

    def download(self, download_id: str) -> DownloadStatus:
        self._take("download", download_id)
        return DOWNLOAD

    def start_download(self, model: str, *, revision: str | None, alone: bool) -> tuple[DownloadStatus, ...]:
        self._take("start_download", model, revision, alone)
        return (DOWNLOAD,)

    def steer_download(self, download_id: str, command: DownloadCommand) -> DownloadStatus:
        self._take("steer_download", download_id, command)
        return DOWNLOAD

    async def reload(self) -> ConfigChanges:
        self._take("reload")
        return ConfigChanges(added=("new",), needs_restart=("server.port",))

    def shutdown(self) -> None:
        self._take("shutdown")

    def answer_now(self, request_id: str) -> None:
        self._take("answer_now", request_id)

    def cancel(self, request_id: str) -> None:
        self._take("cancel", request_id)

    async def load(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("load", model, wait)

    async def unload(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("unload", model, wait)

    def pin(self, model: str, *, pinned: bool) -> ModelStatus:
        self._take("pin", model, pinned)
        return ROW

    async def select(self, model: str, *, wait: bool) -> ModelStatus:
        return await self._do("select", model, wait)

    def _take(self, *command: Any) -> None:
        self.commands.append(command)
        if isinstance(self.script[-1], Exception):
            raise self.script[-1]

    async def _do(self, *command: Any) -> ModelStatus:
        self._take(*command)
        if isinstance(gate := self.script[-1], Gate):
            try:
                await gate.passed()
            except asyncio.CancelledError:
                self.saw.append(asyncio.CancelledError)
                raise
        return ROW


def app_over(
    backend: FakeBackend,
    control: FakeControl | None = None,
    *,
    api_key: str | None = None,
    token: str | None = None,
    keys: AccessKeys | None = None,
    metrics: MetricsBackend | None = None,
    mcp: FakeTools | None = None,
    **settings: Any,
) -> Starlette:
    if keys is None:
        keys = AccessKeys(token)
        keys.replace(api_key, {})
    return create_app(
        backend,
        control or FakeControl(),
        ApiSettings(**settings),
        embeddings=backend,
        keys=keys,
        mcp=mcp,
        metrics=metrics,
    )


def client_of(backend: FakeBackend, control: FakeControl | None = None, **settings: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app_over(backend, control, **settings))
    return httpx.AsyncClient(transport=transport, base_url="http://localhost:7374")


async def post_chat(backend: FakeBackend, body: Any = None, **settings: Any) -> httpx.Response:
    """One chat request, answered in whole."""
    content = body if isinstance(body, bytes) else json.dumps(HELLO if body is None else body).encode()
    async with client_of(backend, **settings) as client:
        return await client.post("/v1/chat/completions", content=content)


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error object of a response, which must be OpenAI's; `retry_after` stands in it where the header does."""
    body = response.json()
    assert set(body) == {"error"}
    error = body["error"]
    has_header = "retry-after" in response.headers
    assert set(error) == {"message", "type", "param", "code", *(["retry_after"] if has_header else [])}
    assert not has_header or str(error["retry_after"]) == response.headers["retry-after"]
    assert isinstance(error["message"], str)
    assert error["message"]
    assert isinstance(error["code"], str)
    return dict(error)


class Exchange:
    """One raw ASGI request: the test sees each message as it is sent, and may leave at any time."""

    def __init__(self, app: Any, body: Any = None, *, send_gate: Gate | None = None, **scope: Any) -> None:
        self._ahead = ""  # frames that have come and were not asked for yet
        self.messages: list[dict[str, Any]] = []
        self._sent: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._send_gate = send_gate
        self.send_error: Exception | None = None
        content = json.dumps(HELLO if body is None else body).encode()
        self.feed(content if scope.get("method") != "GET" else b"", more=False)
        self.scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": "/v1/chat/completions",
            "raw_path": b"/v1/chat/completions",
            "query_string": b"",
            "root_path": "",
            "headers": [(b"host", b"localhost:7374")],
            "client": ("127.0.0.1", 50000),
            "server": ("127.0.0.1", 7374),
        } | scope
        call: Awaitable[None] = app(self.scope, self._incoming.get, self._send)
        self.task = asyncio.ensure_future(call)

    def feed(self, content: bytes, *, more: bool) -> None:
        self._incoming.put_nowait({"type": "http.request", "body": content, "more_body": more})

    def disconnect(self) -> None:
        self._incoming.put_nowait({"type": "http.disconnect"})

    async def _send(self, message: dict[str, Any]) -> None:
        if self.send_error is not None:
            raise self.send_error
        self.messages.append(message)
        self._sent.put_nowait(message)
        if self._send_gate is not None and message["type"] == "http.response.body":
            await self._send_gate.passed()

    async def status(self) -> int:
        message = await self._sent.get()
        assert message["type"] == "http.response.start"
        return int(message["status"])

    async def frame(self) -> str:
        """The next piece of body, which in a stream is one frame or more."""
        if self._ahead:
            text, self._ahead = self._ahead, ""
            return text
        message = await self._sent.get()
        assert message["type"] == "http.response.body"
        return str(message["body"].decode())

    async def chunk(self) -> dict[str, Any]:
        """The next frame, which must be one chunk. Frames that are ready at the same time come as one piece of body."""
        frame, end, self._ahead = (await self.frame()).partition("\n\n")
        (value,) = chunks_of(frame + end)
        return value

    async def delta(self) -> dict[str, Any]:
        """The next delta that is not empty: heartbeats and wait states are passed over."""
        while not (delta := dict((await self.chunk())["choices"][0]["delta"])):
            pass
        return delta

    async def rest(self) -> str:
        """Everything from here to the end of the response."""
        await self.task
        assert not self.messages[-1].get("more_body", False)
        ahead, self._ahead = self._ahead, ""
        return ahead + "".join([await self.frame() for _ in range(self._sent.qsize())])


def frames_of(text: str) -> list[str]:
    """A stream's data, frame by frame; its framing must be exact."""
    *frames, rest = text.split("\n\n")
    assert rest == ""
    assert all("\n" not in frame for frame in frames)
    return [frame.removeprefix("data: ") for frame in frames if not frame.startswith(":")]


def chunks_of(text: str) -> list[dict[str, Any]]:
    """The JSON values of a stream, `[DONE]` left out."""
    return [json.loads(frame) for frame in frames_of(text) if frame != "[DONE]"]
