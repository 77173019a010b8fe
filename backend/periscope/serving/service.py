"""ChatService: one chat request, end to end, without HTTP. Event loop only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from periscope.core import (
    CaptionedImage,
    Finished,
    GenerationRequest,
    ImagePart,
    Message,
    ModelCard,
    OutputEvent,
    VisionMode,
    VisionUsage,
    Waiting,
    WaitStatus,
)
from periscope.engine import InferenceEngine
from periscope.errors import InvalidRequest, ModelUnavailable, ServerStopping
from periscope.pool.state import ModelState
from periscope.serving.disabled_images import without_images
from periscope.serving.generation import generate
from periscope.serving.health import Health, health_of
from periscope.vision.proxy import Rewritten, VisionProxy

if TYPE_CHECKING:
    from periscope.pool.pool import ModelPool
    from periscope.serving.models import ModelNames, ServedModel
    from periscope.serving.requests import LiveRequest, LiveRequests

#: How often a request that waits for captions looks what its captioner is doing.
_LOOK_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True)
class _Prompted:
    """A request whose messages are text only now."""

    messages: tuple[Message, ...]
    vision: VisionUsage | None


class ChatService:
    """Owns the way of a request: images to words, a lease, generation, events. Holds no state of a request itself."""

    def __init__(self, models: ModelNames, pool: ModelPool, proxy: VisionProxy, requests: LiveRequests) -> None:
        self._models = models
        self._requests = requests
        self._pool = pool
        self._proxy = proxy
        self._is_stopping = False

    def stop_admitting(self) -> None:
        """New requests get ServerStopping; running ones go on."""
        self._is_stopping = True

    async def stream(self, request: GenerationRequest) -> AsyncGenerator[OutputEvent, None]:
        """The request's events, `Finished` last. `aclose()` at any point frees whatever it holds or waits for.

        Raises:
            RequestError: the client's fault; before the first event, except for what only captions and the rendered
                prompt can tell.
            ServerBusy: its model has too many requests already.
            ServerStopping, ModelUnavailable, CaptionerUnavailable, GenerationFailed, EngineClosed: ours.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        model = self._models.resolve(request.model)
        with self._requests.entered(request, model.name) as live:
            async with aclosing(self._answer(request, model, live)) as events:
                async for event in events:
                    if isinstance(event, Waiting):
                        live.waits(event)
                    elif isinstance(event, Finished):
                        live.is_finished = True
                    yield event

    async def _answer(
        self, request: GenerationRequest, model: ServedModel, live: LiveRequest
    ) -> AsyncGenerator[OutputEvent, None]:
        prompted = _Prompted(request.messages, None)
        if any(message.images for message in request.messages):
            async with aclosing(self._see(request.messages, model)) as seeing:
                async for step in seeing:
                    if isinstance(step, _Prompted):
                        prompted = step
                    else:
                        yield step
        with self._pool.ticket(model.name) as ticket:
            async for waiting in ticket.updates():
                yield waiting
            live.generates()
            engine = ticket.engine(InferenceEngine)
            text_only = replace(request, messages=prompted.messages, params=request.params.over(model.params))
            async with aclosing(generate(engine, text_only, prompted.vision)) as events:
                async for event in events:
                    yield event

    async def _see(self, messages: Sequence[Message], model: ServedModel) -> AsyncGenerator[Waiting | _Prompted, None]:
        """The one place that decides on vision mode. Ends with a `_Prompted`."""
        match model.vision:
            case VisionMode.DISABLED:
                yield _Prompted(without_images(messages, model), None)
            case VisionMode.NATIVE:
                raise ModelUnavailable(
                    f"Model {model.name} is set to `vision_mode: native`, which this version does not serve yet. "
                    "Use `proxy` with a captioner."
                )
            case VisionMode.PROXY:
                async with aclosing(self._caption(messages, model)) as steps:
                    async for step in steps:
                        yield step

    async def _caption(
        self, messages: Sequence[Message], model: ServedModel
    ) -> AsyncGenerator[Waiting | _Prompted, None]:
        assert model.proxy is not None  # noqa: S101 - proxy mode always has its settings
        settings, captioner = model.proxy, model.captioner

        async def rewrite(on_captioning: Callable[[], None]) -> Rewritten:
            return await self._proxy.rewrite(messages, captioner, settings, on_captioning=on_captioning)

        captioning = asyncio.Event()
        rewriting = asyncio.create_task(rewrite(captioning.set), name="caption images")
        try:
            async with aclosing(self._watch_captioning(rewriting, captioning, model.captioner_model)) as waits:
                async for waiting in waits:
                    yield waiting
            rewritten = await rewriting
            yield _Prompted(rewritten.messages, rewritten.vision)
        finally:
            rewriting.cancel()
            await asyncio.gather(rewriting, return_exceptions=True)

    async def _watch_captioning(
        self, rewriting: asyncio.Task[Rewritten], captioning: asyncio.Event, captioner: str | None
    ) -> AsyncGenerator[Waiting, None]:
        """What the captions wait for, until they are there: first for the captioner, then for its words."""
        noticing = asyncio.create_task(captioning.wait(), name="notice captioning")
        try:
            await asyncio.wait({rewriting, noticing}, return_when=asyncio.FIRST_COMPLETED)
            told: Waiting | None = None
            while not rewriting.done():
                waiting = self._captioner_wait(captioner)
                if told is None or (waiting.status, waiting.progress) != (told.status, told.progress):
                    told = waiting
                    yield waiting
                await asyncio.wait({rewriting}, timeout=_LOOK_AGAIN_S)
        finally:
            noticing.cancel()
            await asyncio.gather(noticing, return_exceptions=True)

    def _captioner_wait(self, captioner: str | None) -> Waiting:
        waiting = None if captioner is None else self._pool.wait_for(captioner)
        return waiting or Waiting(WaitStatus.CAPTIONING, captioner or "")

    async def caption(self, model: str, images: tuple[ImagePart, ...]) -> tuple[CaptionedImage, ...]:
        """What the model's captioner says about each image, in order; cached captions count.

        Raises:
            InvalidRequest: the model has no captioner, or there are too many images.
            ImageInvalid, ImageSourceRefused: an image cannot be taken.
            ServerStopping: nothing new is taken.
        """
        if self._is_stopping:
            raise ServerStopping("The server is stopping.")
        served = self._models.resolve(model)
        if served.captioner is None or served.proxy is None:
            raise InvalidRequest(
                f"Model {served.name} has no captioner. Set `capabilities.vision_mode: proxy` for it in models.yaml.",
                param="model",
            )
        return await self._proxy.describe(images, served.captioner, served.proxy)

    def models(self) -> tuple[ModelCard, ...]:
        """All models clients may name, the default one first; instant."""
        default = self._models.default
        return tuple(self._card(model) for model in (default, *(m for m in self._models.all if m is not default)))

    def _card(self, model: ServedModel) -> ModelCard:
        state = self._pool.view(model.name).state
        engine = self._pool.loaded(model.name, InferenceEngine)
        info = None if engine is None else engine.model_info
        return ModelCard(
            name=model.name,
            aliases=model.aliases,
            created=model.created,
            context_length=info.context_length if info else model.context_length,
            vision=model.vision,
            has_tools=info.has_tools if info else None,
            has_reasoning=info.has_reasoning if info else None,
            is_loaded=state is ModelState.READY,
            state=state,
        )

    def health(self) -> Health:
        """Instant; no device, no waiting."""
        is_starting = self._models.default.name in self._pool.preloading
        return health_of(self._pool.views(), self._models, is_starting=is_starting, is_stopping=self._is_stopping)
