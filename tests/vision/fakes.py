"""Fakes and pictures of the vision tests: a captioner that can be held, an executor run by hand, data: URLs."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import Executor, Future
from typing import Any, ParamSpec, TypeVar

import PIL.Image

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Image, ImagePart, Message, Role, Tell, TextPart, Waiting, WaitStatus
from periscope.errors import CaptionFailed, ServerBusy
from periscope.vision.captioner import CaptionerId, CaptionRequest

P = ParamSpec("P")
T = TypeVar("T")


def encoded(picture: PIL.Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    """The picture as a file's bytes."""
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def png(color: str | tuple[int, int, int] = "red", size: tuple[int, int] = (4, 3)) -> bytes:
    """A plain picture."""
    return encoded(PIL.Image.new("RGB", size, color))


def data_url(data: bytes) -> str:
    """What a client sends."""
    return "data:image/png;base64," + base64.b64encode(data).decode()


def conversation(*turns: Sequence[str | bytes], role: Role = Role.USER) -> tuple[Message, ...]:
    """One message per turn; text stays text, bytes become an image part with its place as param."""
    return tuple(
        Message(
            role,
            tuple(
                TextPart(part) if isinstance(part, str) else ImagePart(data_url(part), f"messages[{i}].content[{j}]")
                for j, part in enumerate(turn)
            ),
        )
        for i, turn in enumerate(turns)
    )


def rgb_image(color: str = "red") -> Image:
    """A decoded picture of one pixel."""
    return Image(PIL.Image.new("RGB", (1, 1), color).tobytes(), 1, 1, 1, 1, sha256=color)


class FakeCaptioner:
    """Describes a picture by its first pixel and counts how often it did.

    Args:
        failures: what it answers for a first pixel instead of a caption; `ServerBusy` if its turn does not come.
        error: raised instead of answering.
        gate: held until this is set.
    """

    def __init__(
        self,
        *,
        failures: dict[tuple[int, int, int], str | ServerBusy] | None = None,
        error: BaseException | None = None,
        gate: asyncio.Event | None = None,
        captioner_id: CaptionerId = CaptionerId("fake", "1"),
    ) -> None:
        self.requests: list[CaptionRequest] = []
        self.started = asyncio.Event()
        self.num_cancelled = 0
        self.failures = failures or {}
        self.error = error
        self._gate = gate
        self._id = captioner_id

    @property
    def id(self) -> CaptionerId:
        return self._id

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        self.requests.append(request)
        tell(Waiting(WaitStatus.CAPTIONING, self._id.name))
        self.started.set()
        if self._gate is not None:
            try:
                await self._gate.wait()
            except asyncio.CancelledError:
                self.num_cancelled += 1
                raise
        if self.error is not None:
            raise self.error
        return tuple(self._answer(image, i) for i, image in enumerate(request.images))

    def _answer(self, image: Image, i: int) -> CaptionOutcome:
        pixel = (image.rgb[0], image.rgb[1], image.rgb[2])
        failure = self.failures.get(pixel)
        if failure is not None:
            return failure if isinstance(failure, ServerBusy) else CaptionFailed(failure)
        return Caption(f"Colour {pixel}, try {len(self.requests)}.", num_tokens=7, elapsed_ms=10 * (i + 1))


class HandExecutor(Executor):
    """Owns the calls it was given and runs them, on this thread, when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def run_waiting(self) -> int:
        """Run what is waiting; returns how many calls nobody had given up."""
        calls, self.waiting = self.waiting, []
        ran = 0
        for future, call in calls:
            if future.set_running_or_notify_cancel():
                ran += 1
                try:
                    future.set_result(call())
                except Exception as error:  # noqa: BLE001 - an executor hands on whatever comes
                    future.set_exception(error)
        return ran


async def settled() -> None:
    """Let every task run until it waits for something. A fixed number of loop turns, no time."""
    for _ in range(20):
        await asyncio.sleep(0)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Cancel a task and see it end that way."""
    task.cancel()
    outcome = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome[0], asyncio.CancelledError)


def run(test: Coroutine[Any, Any, None]) -> None:
    """Run a test on a loop of its own and see that it leaves no task behind."""

    async def checked() -> None:
        await test
        await settled()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(checked())
