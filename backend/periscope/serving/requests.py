"""LiveRequests: the requests that wait or run, for their status and for cancelling them. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from periscope.core import (
    TRACE_PARENT,
    Finished,
    GenerationRequest,
    Operation,
    PhaseSpan,
    RequestPhase,
    RequestTrace,
    Waiting,
)
from periscope.core.caller import KEY_NAME
from periscope.errors import RequestCancelled, RequestNotFound
from periscope.events import RequestChanged, RequestEnded
from periscope.serving.output_rate import OutputRate
from periscope.status import RequestStatus

if TYPE_CHECKING:
    from periscope.events import Event


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as its status and its trace tell it; `num_choices` of all prompts together."""

    num_images: int = 0
    num_choices: int = 1
    operation: Operation = Operation.CHAT


def operation_of(request: GenerationRequest) -> Operation:
    """Pure: the name of what the model is asked to do."""
    if request.counts_only:
        return Operation.COUNT_TOKENS
    return Operation.TEXT_COMPLETION if request.prompts else Operation.CHAT


@dataclass(slots=True)
class LiveRequest:
    """Owns the progress of one request. The code that serves it notes each step here, which publishes an event.

    Attributes:
        since: when it arrived, on the event loop's clock.
        key: name of the API key that it came with.
        finished: its last event, which was sent, so closing it now cancels nothing; None before it.
    """

    id: str
    model: str
    asked: Asked
    since: float
    _task: asyncio.Task[object] | None
    _publish: Callable[[Event], None]
    _rate: OutputRate
    _now: Callable[[], float]
    key: str | None = None
    finished: Finished | None = None
    _waiting: Waiting | None = None
    _is_generating: bool = False
    _is_thinking: bool = False
    _phase: RequestPhase = RequestPhase.STARTING
    _phase_since: float = 0.0
    _phases: list[PhaseSpan] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._phase_since = self.since

    def waits(self, waiting: Waiting) -> None:
        """Note what the request waits for now, which may also be between two steps of its generation."""
        self._waiting = waiting
        self._enter(RequestPhase(waiting.status), self._now())
        self._publish(RequestChanged(self.id))

    def generates(self) -> None:
        """Note that the request has its lease and generates from now on."""
        self._is_generating, self._waiting = True, None
        self._enter(RequestPhase.PREFILL, self._now())
        self._publish(RequestChanged(self.id))

    def writes(self, *, is_thinking: bool) -> None:
        """A piece of the reasoning or of the answer has come; this is an event only where one follows the other."""
        now = self._now()
        self._rate.note(now)
        if self._phase is not RequestPhase.DECODE:
            self._enter(RequestPhase.DECODE, now)
        if is_thinking is not self._is_thinking:
            self._is_thinking = is_thinking
            self._publish(RequestChanged(self.id))

    def trace(self, now: float, error: str | None) -> RequestTrace:
        """What is known of the request when it ends."""
        finished = self.finished
        return RequestTrace(
            model=self.model,
            operation=self.asked.operation,
            num_images=self.asked.num_images,
            num_choices=self.asked.num_choices,
            phases=(*self._phases, PhaseSpan(self._phase, self._phase_since, now)),
            error=error,
            usage=None if finished is None else finished.usage,
            finish_reasons=() if finished is None else finished.finish_reasons,
            vision=None if finished is None else finished.vision,
            parent=TRACE_PARENT.get(),
        )

    def _enter(self, phase: RequestPhase, now: float) -> None:
        """Begin a phase. Nothing changes if it is under way, such as a load whose progress is noted again."""
        if phase is not self._phase:
            self._phases.append(PhaseSpan(self._phase, self._phase_since, now))
            self._phase, self._phase_since = phase, now

    def cancel(self) -> None:
        """Cancel the task that iterates over the request; only once, so that its clean-up is not cancelled as well."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    def status(self, now: float) -> RequestStatus:
        """The request as it is at this moment."""
        age_s, waiting = now - self.since, self._waiting
        if waiting is None:
            step = "generating" if self._is_generating else "starting"
            return RequestStatus(
                id=self.id,
                model=self.model,
                status=step,
                age_s=age_s,
                num_images=self.asked.num_images,
                key=self.key,
                is_thinking=self._is_thinking,
            )
        return RequestStatus(
            id=self.id,
            model=self.model,
            status=waiting.status,
            age_s=age_s,
            position=waiting.position,
            progress=waiting.progress,
            eta_s=waiting.eta_s,
            num_images=self.asked.num_images,
            num_done=waiting.num_done,
            num_total=waiting.num_total,
            key=self.key,
        )


class LiveRequests:
    """Owns the list of the requests that wait or run, in order of arrival."""

    def __init__(self, publish: Callable[[Event], None]) -> None:
        self.num_finished = 0
        self._publish = publish
        self._live: dict[str, LiveRequest] = {}
        self._rate = OutputRate()

    @property
    def tokens_per_s(self) -> float:
        """How fast all answers together are written now."""
        return self._rate.per_s(asyncio.get_running_loop().time())

    @contextmanager
    def entered(self, request_id: str, model: str, asked: Asked = Asked()) -> Iterator[LiveRequest]:
        """Keep a request in the list while the block runs; the task that iterates over the request enters it.

        The request itself is not kept: its images are freed long before its end.
        """
        loop = asyncio.get_running_loop()
        live = LiveRequest(
            id=request_id,
            model=model,
            asked=asked,
            since=loop.time(),
            _task=asyncio.current_task(),
            _publish=self._publish,
            _rate=self._rate,
            _now=loop.time,
            key=KEY_NAME.get(),
        )
        self._live[request_id] = live
        self._publish(RequestChanged(request_id))
        outcome, error = "finished", None
        try:
            yield live
        except (asyncio.CancelledError, GeneratorExit):
            if live.finished is None:
                outcome, error = "cancelled", RequestCancelled.__name__
            raise
        except BaseException as raised:
            outcome, error = "failed", type(raised).__name__
            raise
        finally:
            del self._live[request_id]
            self.num_finished += 1
            # In the next turn of the loop: the client's last bytes are written in this one, and wait for nothing more.
            loop.call_soon(self._publish, RequestEnded(request_id, outcome, live.trace(loop.time(), error)))

    def status(self, request_id: str) -> RequestStatus | None:
        """One request as it is now; None when it has ended."""
        live = self._live.get(request_id)
        return None if live is None else live.status(asyncio.get_running_loop().time())

    def all(self) -> tuple[RequestStatus, ...]:
        """All requests that wait or run, the oldest first."""
        now = asyncio.get_running_loop().time()
        return tuple(live.status(now) for live in self._live.values())

    def cancel(self, request_id: str) -> None:
        """Cancel a request in whatever step it is.

        Raises:
            RequestNotFound: there is no such request, or it has ended.
        """
        self.find(request_id).cancel()

    def find(self, request_id: str) -> LiveRequest:
        """The request that waits or runs.

        Raises:
            RequestNotFound: there is no such request, or it has ended.
        """
        live = self._live.get(request_id)
        if live is None:
            raise RequestNotFound(
                f"No request {request_id[:128]!r} is waiting or running; GET /api/requests lists those that are.",
                param="id",
            )
        return live
