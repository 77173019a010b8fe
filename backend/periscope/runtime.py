"""The composition root: Config -> rooms, and the order in which they start and stop. Names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import mlx.core as mx
import stamina.instrumentation

from periscope.config import (
    Config,
    ModelConfig,
    RemoteConfig,
)
from periscope.core import Footprint, ModelKind, ModelState, VisionMode, require_model
from periscope.engine import VisionLanguageEngine
from periscope.engine.device.memory import DeviceMemory, WiredLimit
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.isolated.engine import IsolatedVisionLanguageEngine
from periscope.engine.loading.footprint import measure
from periscope.events import EventBus, ModelStateChanged
from periscope.pool.contracts import LoadProgress, ModelSpec, PooledEngine, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.remote import Endpoint, OpenAIClient, Timeouts
from periscope.serving.control import ControlService
from periscope.serving.generation import LocalGenerator
from periscope.serving.health import Notices
from periscope.serving.models import DisabledImages, ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.status import ServerIdentity
from periscope.vision.backends.leased import ImageDescriber, LeasedCaptioner
from periscope.vision.backends.remote import RemoteCaptioner
from periscope.vision.backends.remote_server import RemoteServer
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.images.remote import RemoteImages
from periscope.vision.intake import ImageIntake
from periscope.vision.proxy import VisionProxy
from periscope.vision.readers.find import ReaderKind
from periscope.vision.reading import ImageReading
from periscope.wiring import (
    backend_and_model,
    caption_cache,
    captioner_id,
    captioner_name,
    engine_config,
    installed_reader,
    peek_context_length,
    picture_fetcher,
    proxy_settings,
    source_of,
)

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)

#: Threads that read and decode images. Decoding is C code that lets go of the interpreter.
NUM_DECODE_THREADS = 2
#: Once the models are loaded, the start waits no longer than this to hear how captioners on other servers are.
CHECK_GRACE_S = 2.0
#: A caption has a few kilobytes. A server whose answer is longer has gone astray.
MAX_CAPTION_ANSWER_BYTES = 1024 * 1024


@runtime_checkable
class PooledDescriber(PooledEngine, ImageDescriber, Protocol):
    """A vision-language model in the pool, whichever process it runs in."""


class Runtime:
    """Owns all rooms of one Periscope. Build it from a Config, `start` it, `stop` it; all on one event loop.

    Attributes:
        notices: what of the server itself is not as it should be; stands among the problems of its status.
    """

    def __init__(self, config: Config, identity: ServerIdentity = ServerIdentity()) -> None:
        self.config = config
        self.bus = EventBus()
        self.notices = Notices(self.bus.publish)
        self._turn = DeviceTurn(config.captioner_share)
        self._decoding = ThreadPoolExecutor(NUM_DECODE_THREADS, thread_name_prefix="periscope-decode")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="periscope-read")
        self._reader = cache(installed_reader)  # one for all text models that ask for the same: it takes memory
        self._memory = DeviceMemory(config.memory.budget)
        limits = PoolLimits(
            budget_bytes=self._memory.budget_bytes(),
            max_waiting=config.server.limits.max_waiting,
            wait_timeout_s=config.server.limits.wait_timeout_s,
        )
        specs = [self._spec(model) for model in config.models if model.remote is None]
        self._pool = ModelPool(specs, self.bus, limits, memory=self._memory)
        self._remote = {
            model.name: self._remote_captioner(model, model.remote)
            for model in config.models
            if model.remote is not None
        }
        self._captioners: dict[str, LeasedCaptioner | RemoteCaptioner] = {
            model.name: self._remote.get(model.name) or self._captioner(model)
            for model in config.models
            if model.kind is ModelKind.CAPTIONER
        }
        self._watching: list[asyncio.Task[None]] = []
        requests = LiveRequests(self.bus.publish)
        names = ModelNames(self._served(model) for model in config.models if model.kind is ModelKind.TEXT)
        in_flight = BytesInFlight(
            config.server.limits.max_image_bytes_in_flight, wait_timeout_s=config.server.limits.wait_timeout_s
        )
        self._captions = caption_cache(config.caption_cache)
        reading = ImageReading(
            self._captions, executor=self._reading, wait_timeout_s=config.server.limits.wait_timeout_s
        )
        self._fetcher = picture_fetcher(config.server.remote_images)
        web = config.server.remote_images
        remote = RemoteImages(self._fetcher.fetch, max_per_request=web.max_per_request) if web.enabled else None
        intake = ImageIntake(executor=self._decoding, in_flight=in_flight, remote=remote)
        proxy = VisionProxy(self._captions, intake=intake, reading=reading)
        self.service = ChatService(names, self._pool, proxy, requests, self._remote.values(), notices=self.notices)
        self.control = ControlService(
            self.service,
            self._pool,
            names,
            requests,
            self.bus,
            captions=self._captions,
            identity=identity,
            read_memory=_read_memory,
        )

    async def start(self, *, preloads: bool = True) -> None:
        """Load what is to be loaded at start, side by side, and wait for it. Failures are in `service.health()`.

        Args:
            preloads: else nothing is loaded before a request or a command wants it.
        """
        WiredLimit.set_once(self.config.memory.wired_limit)
        self._captions.start_loading()
        checks = [asyncio.create_task(each.checked()) for each in self._watch_captioners()]
        try:
            await self._pool.preload(
                model.name for model in self.config.models if preloads and model.preload and model.remote is None
            )
            if checks:
                await asyncio.wait(checks, timeout=CHECK_GRACE_S)
        finally:
            for check in checks:
                check.cancel()

    def _watch_captioners(self) -> list[RemoteCaptioner]:
        """Name in the log every captioner that a model uses, and watch those on other servers, which are returned."""
        stamina.instrumentation.set_on_retry_hooks(())  # the captioner's own log line says more
        names = list(dict.fromkeys(filter(None, map(captioner_name, self.config.models))))
        for name in names:
            logger.info("captioner: %s", backend_and_model(require_model(self.config.models, name)))
        remote = [self._remote[name] for name in names if name in self._remote]
        self._watching += [asyncio.create_task(each.watch(), name=f"watch captioner {each.name}") for each in remote]
        return remote

    def stop_admitting(self) -> None:
        """Idempotent: new requests are refused and event streams end; what runs goes on."""
        self.service.stop_admitting()
        self.control.stop()

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: refuse new requests, let running ones finish for up to `drain_s`, free every model."""
        self.stop_admitting()
        await self._pool.close(drain_s=drain_s)
        for task in self._watching:
            task.cancel()
        await asyncio.gather(*self._watching, return_exceptions=True)
        for captioner in self._remote.values():
            await captioner.close()
        await self._captions.close()
        self._fetcher.close()
        for executor in (self._decoding, self._reading):
            executor.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def _spec(self, model: ModelConfig) -> ModelSpec:
        source, settings = source_of(model), engine_config(model, self.config)

        async def measured() -> Footprint:
            return await asyncio.to_thread(measure, source, settings, kind=model.kind)

        async def load(progress: LoadProgress) -> PooledEngine:
            match model.kind:
                case ModelKind.TEXT:
                    return await LocalGenerator.load(
                        source, settings, turn=self._turn, progress=progress, memory=self._memory
                    )
                case ModelKind.CAPTIONER:
                    engine = IsolatedVisionLanguageEngine if model.isolated else VisionLanguageEngine
                    return await engine.load(source, settings, turn=self._turn, progress=progress)

        return ModelSpec(
            model.name,
            measured,
            load,
            kind=model.kind,
            aliases=model.aliases,
            max_running=model.params.max_num_seqs,
            is_pinned=model.pin,
            ttl_s=self.config.idle_unload_s if model.ttl_s is None else model.ttl_s,
            is_isolated=model.isolated,
        )

    def _captioner(self, model: ModelConfig) -> LeasedCaptioner:
        kind: type[PooledDescriber] = PooledDescriber  # type: ignore[type-abstract]  # nobody makes one of it
        return LeasedCaptioner(
            lambda tell: self._pool.lease(model.name, kind, tell=tell),
            captioner_id(model),
            wait_timeout_s=self.config.server.limits.wait_timeout_s,
        )

    def _remote_captioner(self, model: ModelConfig, remote: RemoteConfig) -> RemoteCaptioner:
        key = self.config.api_keys.get(remote.api_key_env or "")

        def changed(old: ModelState, new: ModelState, reason: str | None) -> None:
            self.bus.publish(ModelStateChanged(model.name, old, new, reason))

        return RemoteCaptioner(
            RemoteServer(
                name=model.name,
                backend=remote.backend,
                base_url=remote.base_url,
                model=remote.model,
                is_streamed=remote.stream,
                max_concurrent=remote.max_concurrent,
                num_retries=remote.num_retries,
                extra_body=remote.extra_body,
                missing_key=remote.api_key_env if key is None else None,
            ),
            OpenAIClient(
                Endpoint(
                    remote.base_url,
                    api_key=key,
                    timeouts=Timeouts(connect_s=remote.connect_timeout_s, silence_s=remote.read_timeout_s),
                    ca_file=None if remote.ca_file is None else Path(remote.ca_file),
                    max_answer_bytes=MAX_CAPTION_ANSWER_BYTES,
                )
            ),
            encoding=self._decoding,
            wait_timeout_s=self.config.server.limits.wait_timeout_s,
            max_waiting=self.config.server.limits.max_waiting,
            on_change=changed,
        )

    def _served(self, model: ModelConfig) -> ServedModel:
        capabilities, name = model.capabilities, captioner_name(model)
        vision = capabilities.vision_proxy if capabilities.vision_mode is VisionMode.PROXY else None
        captioner = None if name is None else self._captioners[require_model(self.config.models, name).name]
        return ServedModel(
            name=model.name,
            aliases=model.aliases,
            created=int(time.time()),
            context_length=peek_context_length(model),
            vision=capabilities.vision_mode,
            params=model.params.generation,
            captioner=captioner,
            proxy=None
            if vision is None
            else proxy_settings(vision, self._reader(ReaderKind(vision.reader), vision.reader_languages)),
            disabled_images=DisabledImages(capabilities.images_when_disabled),
        )


def _read_memory() -> tuple[int, int, int]:
    """Bytes that MLX uses, keeps ready, and has used at most, in this process."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()
