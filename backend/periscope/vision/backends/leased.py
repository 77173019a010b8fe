"""LeasedCaptioner captions images with a vision-language model that it leases for each request. Event loop only.

It gets the model from a lease function, so it knows neither the pool nor the process or machine in which the model
runs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol, TypeAlias

from periscope.captions.caption import Caption, CaptionOutcome
from periscope.core import Image, Tell, Waiting, WaitStatus
from periscope.errors import CaptionEmpty, CaptionFailed, EngineClosed, PeriscopeError, ServerBusy
from periscope.vision.backends.time_budget import TimeBudget
from periscope.vision.captioner import CaptionerId, CaptionRequest
from periscope.vision.prompts import clean_text

logger = logging.getLogger(__name__)

#: If a caption is empty, the model is asked once more: in another batch it may round differently.
_NUM_TRIES: Final = 2
#: Seconds that the captions of one request typically take.
_RETRY_AFTER_S: Final = 5


class ImageDescriber(Protocol):
    """A loaded vision-language model, as the lease function gives it."""

    async def describe(
        self, image: Image, prompt: str, max_tokens: int, *, on_start: Callable[[], None]
    ) -> tuple[str, int]:
        """Generate greedy text about one image. Any number of calls may run at once; each is cancellable.

        Returns:
            The text, which may be empty, and the number of generated tokens.

        Args:
            on_start: called once, when the batch of the model has a place for the image.

        Raises:
            EngineClosed: the model was unloaded, or its worker has ended.
            GenerationFailed: this image's request failed.
            CaptionFailed: the same, with the reason that the image's marker is to give.
            ServerBusy: the model works, but has no place for this image now.
        """
        ...


#: Leases the model for one request, and calls `tell` with what it waits for. Raises what `Captioner.caption` raises.
LeaseModel: TypeAlias = Callable[[Tell], AbstractAsyncContextManager[ImageDescriber]]


class LeasedCaptioner:
    """Owns the count of images that the model works on, over all requests; so there is one captioner for each model.

    The model is leased for one request and released before the request uses its text model: no request ever holds two
    models. All images of a request are submitted at once, so that the model can batch them.

    Args:
        wait_timeout_s: how long a request that has its lease may wait while the model works for other requests only.
    """

    def __init__(
        self,
        lease: LeaseModel,
        captioner_id: CaptionerId,
        *,
        wait_timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease = lease
        self._id = captioner_id
        self._wait_timeout_s = wait_timeout_s
        self._clock = clock
        self._num_in_work = 0
        self._running: set[_Captioning] = set()

    def __repr__(self) -> str:
        return f"<LeasedCaptioner {self._id.name} requests={len(self._running)} images in work={self._num_in_work}>"

    @property
    def id(self) -> CaptionerId:
        """Identity of this captioner."""
        return self._id

    @property
    def num_in_work(self) -> int:
        """Images, of all requests, that have a place in the batch of the model."""
        return self._num_in_work

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        """One outcome for each image, in order. Captions that are done are returned, whatever becomes of the others.

        Raises:
            ServerBusy: the queue of the model is full, or the wait for its lease was too long.
            ServerStopping: the server is stopping.
            ModelUnavailable: the model cannot be loaded.
        """
        async with self._lease(tell) as model:
            budget = TimeBudget(work_s=request.timeout_s, wait_s=self._wait_timeout_s)
            captioning = _Captioning(self, model, request, budget, self._clock, tell=tell)
            self._running.add(captioning)
            try:
                return await captioning.outcomes()
            finally:
                self._running.discard(captioning)

    def count_in_work(self, change: int) -> None:
        """Count an image that got its place in the batch (1) or left it (-1), and wake every request to look anew."""
        self._num_in_work += change
        for captioning in self._running:
            captioning.changed.set()


class _Captioning:
    """Owns the images of one request while the model is leased for it, and the time budget they share.

    Attributes:
        changed: set whenever an image of any request begins or ends.
    """

    def __init__(
        self,
        captioner: LeasedCaptioner,
        model: ImageDescriber,
        request: CaptionRequest,
        budget: TimeBudget,
        clock: Callable[[], float],
        *,
        tell: Tell,
    ) -> None:
        self.changed = asyncio.Event()
        self._captioner = captioner
        self._model = model
        self._request = request
        self._budget = budget
        self._clock = clock
        self._tell = tell
        self._num_told: int | None = None
        self._num_in_work = 0
        self._began_at: float | None = None

    async def outcomes(self) -> tuple[CaptionOutcome, ...]:
        """Caption all images of the request. Cancelling removes their rows from the batch."""
        asked = zip(self._request.images, self._request.prompts, strict=True)
        tasks = [asyncio.create_task(self._caption(image, prompt), name="describe an image") for image, prompt in asked]
        for task in tasks:
            task.add_done_callback(lambda _: self.changed.set())
        try:
            unfinished = await self._wait_until_done(tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return tuple(unfinished if task.cancelled() else task.result() for task in tasks)

    async def _wait_until_done(self, tasks: list[asyncio.Task[CaptionOutcome]]) -> CaptionFailed | ServerBusy:
        """Wait until all images are done or the time budget is spent; returns the outcome of images that are not done.

        Time counts as work while the captioner works on an image of this request, and also while it works on nothing,
        because a captioner that lets images wait and does nothing hangs. Time counts as waiting while it works for
        other requests only. If the work exceeds its time, the captioner counts as broken; if the wait does, as busy.
        """
        while self._told_done(tasks) < len(tasks):
            self.changed.clear()
            is_work = self._num_in_work > 0 or self._captioner.num_in_work == 0
            if not await self._budget.spend(self.changed, is_work=is_work):
                return self._timed_out() if is_work else self._busy()
        return CaptionFailed("the captioner stopped")

    def _told_done(self, tasks: list[asyncio.Task[CaptionOutcome]]) -> int:
        """How many of the images are done; told if that is news."""
        num_done = sum(task.done() for task in tasks)
        if num_done != self._num_told:
            self._num_told, name = num_done, self._captioner.id.name
            self._tell(Waiting(WaitStatus.CAPTIONING, name, num_done=num_done, num_total=len(tasks)))
        return num_done

    def _timed_out(self) -> CaptionFailed:
        detail = f"the captions of a request took longer than {self._budget.work_s:g} s (`vision_proxy.timeout_s`)"
        return CaptionFailed("the captioner timed out", detail=detail)

    def _busy(self) -> ServerBusy:
        return ServerBusy(
            f"Captioner {self._captioner.id.name} was busy with the images of other requests for "
            f"{self._budget.wait_s:g} s (`server.limits.wait_timeout_s`). Try again soon.",
            retry_after_s=_RETRY_AFTER_S,
        )

    async def _caption(self, image: Image, prompt: str) -> CaptionOutcome:
        try:
            text, num_tokens = await self._caption_text(image, prompt)
        except (CaptionFailed, ServerBusy) as outcome:
            return outcome
        except EngineClosed:
            return CaptionFailed("the captioner is not available")
        except Exception as error:  # noqa: BLE001 - one image's failure must not take its neighbours along
            logger.warning("captioner %s failed on an image: %s", self._captioner.id.name, type(error).__name__)
            detail = error.message if isinstance(error, PeriscopeError) else f"it failed with {type(error).__name__}"
            return CaptionFailed("the captioner failed", detail=detail)
        if not text:
            return CaptionEmpty("the captioner returned nothing")
        elapsed_s = 0.0 if self._began_at is None else self._clock() - self._began_at
        return Caption(text, num_tokens, elapsed_ms=round(elapsed_s * 1000))

    async def _caption_text(self, image: Image, prompt: str) -> tuple[str, int]:
        """The caption, and the tokens of all tries. It is empty only if no try gave visible text."""
        num_tokens = 0
        for _ in range(_NUM_TRIES):
            text, num_more = await self._describe(image, prompt)
            num_tokens += num_more
            if seen := clean_text(text):
                return seen, num_tokens
        return "", num_tokens

    async def _describe(self, image: Image, prompt: str) -> tuple[str, int]:
        """One generation. The image counts as in work from getting its place in the batch until it ends."""
        num_in_work = 0

        def begin() -> None:
            nonlocal num_in_work
            num_in_work = 1
            self._count_in_work(1)

        try:
            return await self._model.describe(image, prompt, self._request.max_tokens, on_start=begin)
        finally:
            if num_in_work:
                self._count_in_work(-num_in_work)

    def _count_in_work(self, change: int) -> None:
        if self._began_at is None and change > 0:
            self._began_at = self._clock()
        self._num_in_work += change
        self._captioner.count_in_work(change)
