"""RemoteCaptioner captions images with a model on another server: vLLM, LMDeploy, Triton or any like them. Event loop.

It takes no memory in the model pool and no device time. It adds to `LeasedCaptioner` a bound on the requests that wait
for the server, and the server's health.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

from periscope.core import ModelKind, ModelState, Tell
from periscope.errors import ServerBusy
from periscope.status import ModelStatus
from periscope.vision.backends.leased import LeasedCaptioner
from periscope.vision.backends.remote_check import problem_of
from periscope.vision.backends.remote_model import RemoteModel, is_busy
from periscope.vision.captioner import CaptionerId

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from periscope.captions.caption import CaptionOutcome
    from periscope.errors import RemoteError
    from periscope.remote import OpenAIClient
    from periscope.vision.backends.remote_server import RemoteServer
    from periscope.vision.captioner import CaptionRequest

#: Seconds between two checks while the server is healthy, and at most while it is not: then each wait doubles.
_CHECK_INTERVAL_S: Final = 60.0
_FIRST_CHECK_INTERVAL_S: Final = 1.0
#: Images that fail together cause one check.
_DOUBT_S: Final = 0.2
_RETRY_AFTER_S: Final = 5

#: Called with the old state, the new one, and the problem, if there is one.
OnChange: TypeAlias = Callable[[ModelState, ModelState, str | None], None]


class RemoteCaptioner:
    """Owns the state of one captioner on another server: whether it works, why not, and how many requests wait for it.

    A captioner whose checks fail is still asked for each image, so that it recovers with the first answer.

    Args:
        encoding: the threads that encode images.
        max_waiting: requests that may wait beyond those whose images the server has.
        on_change: told of every change of `state`.
    """

    def __init__(
        self,
        server: RemoteServer,
        client: OpenAIClient,
        *,
        encoding: Executor,
        wait_timeout_s: float,
        max_waiting: int,
        on_change: OnChange = lambda *_: None,
    ) -> None:
        self.server = server
        self._client = client
        self._max_waiting = max_waiting
        self._on_change = on_change
        self._state = ModelState.UNLOADED
        self._problem: str | None = None
        self._num_requests = 0
        self._num_described = 0
        self._doubt = asyncio.Event()
        self._is_checked = asyncio.Event()
        self._model = RemoteModel(server, client, encoding, self._note)
        self._captioner = LeasedCaptioner(
            self._lease, CaptionerId(server.name, server.revision), wait_timeout_s=wait_timeout_s
        )

    def __repr__(self) -> str:
        where = f"{self.server.backend}/{self.server.model} at {self.server.base_url}"
        return f"<RemoteCaptioner {self.server.name} {where} {self._state} requests={self._num_requests}>"

    @property
    def name(self) -> str:
        """The name of its entry in models.yaml."""
        return self.server.name

    @property
    def id(self) -> CaptionerId:
        """Identity of this captioner: its captions are those of this model on this server."""
        return self._captioner.id

    async def caption(self, request: CaptionRequest, tell: Tell) -> tuple[CaptionOutcome, ...]:
        """One outcome for each image, in order.

        Raises:
            ServerBusy: too many requests wait for this captioner already.
        """
        return await self._captioner.caption(request, tell)

    def status(self) -> ModelStatus:
        """The state of the captioner, in the terms of the pool's models."""
        num_running = min(self._num_requests, self.server.max_concurrent)
        return ModelStatus(
            name=self.server.name,
            kind=ModelKind.CAPTIONER,
            state=self._state,
            num_running=num_running,
            num_waiting=self._num_requests - num_running,
            max_running=self.server.max_concurrent,
            error=self._problem,
        )

    async def health_check(self) -> str | None:
        """Check the server and return the problem and its fix, or None. Never raises for the server's faults."""
        num_described = self._num_described
        looks = self._state is not ModelState.READY or self._doubt.is_set()
        problem = await problem_of(self._client, self.server, looks=looks)
        if num_described != self._num_described:  # an image captioned meanwhile is newer evidence
            problem = None
        self._become(ModelState.READY if problem is None else ModelState.FAILED, problem)
        self._is_checked.set()
        return problem

    async def watch(self) -> None:
        """Check the server now, whenever images have failed, and from time to time, until cancelled."""
        interval_s = _FIRST_CHECK_INTERVAL_S
        while True:
            is_well = await self.health_check() is None
            interval_s = _FIRST_CHECK_INTERVAL_S if is_well else min(2 * interval_s, _CHECK_INTERVAL_S)
            self._doubt.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(_CHECK_INTERVAL_S if is_well else interval_s):
                    await self._doubt.wait()
                    await asyncio.sleep(_DOUBT_S)

    def check(self) -> None:
        """Have `watch` ask the server soon. Does not wait."""
        self._doubt.set()

    async def checked(self) -> None:
        """Wait until the server has been checked for the first time."""
        await self._is_checked.wait()

    async def close(self) -> None:
        """Close the connections; captions under way fail."""
        await self._client.aclose()

    @asynccontextmanager
    async def _lease(self, _tell: Tell) -> AsyncIterator[RemoteModel]:
        """A place at the server. Too many waiting requests are refused at once, as in the queue of a local model."""
        if self._num_requests >= self.server.max_concurrent + self._max_waiting:
            raise ServerBusy(
                f"Captioner {self.server.name} has {self._num_requests} requests already (`remote.max_concurrent` and "
                "`server.limits.max_waiting`). Try again soon.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._num_requests += 1
        try:
            yield self._model
        finally:
            self._num_requests -= 1

    def _note(self, error: RemoteError | None) -> None:
        """Note how an image went: a caption shows that the server works, a failure causes a check."""
        if error is None:
            self._num_described += 1
            self._become(ModelState.READY, None)
        elif not is_busy(error):
            self._doubt.set()

    def _become(self, state: ModelState, problem: str | None) -> None:
        old, self._state = self._state, state
        is_news = (old, self._problem) != (state, problem)
        self._problem = problem
        if is_news:
            self._on_change(old, state, problem)
