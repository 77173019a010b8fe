"""What the API's tests drive it with: backends that play a script, and clients over ASGI."""

from __future__ import annotations

import asyncio
import functools
import json
import struct
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ParamSpec, TypeAlias

import httpx

from periscope.api import AccessKeys, ApiSettings, create_app
from periscope.api.backend import MetricsBackend
from periscope.core import (
    AnswerEvent,
    CaptionedImage,
    DefaultParam,
    DescribedFile,
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

if TYPE_CHECKING:
    from starlette.applications import Starlette
from tests.api.fake_control import FakeControl
from tests.api.gates import Gate, raise_it

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
