"""The composition root: Config -> rooms, and the order in which they start and stop. Names every concrete class."""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

import mlx.core as mx

from periscope import __version__
from periscope.captions.cache import CaptionCache
from periscope.config import Config, ModelConfig, VisionProxyConfig
from periscope.core import Footprint, ModelKind, VisionMode, find_model, require_model
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig, InferenceEngine, VisionLanguageEngine
from periscope.engine.device.memory import DeviceMemory, WiredLimit
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.isolated.engine import IsolatedVisionLanguageEngine
from periscope.engine.loading.footprint import measure
from periscope.engine.loading.loader import context_length_of, find_on_disk, read_model_config
from periscope.errors import ModelLoadError
from periscope.events import EventBus
from periscope.pool.contracts import LoadProgress, ModelSpec, PooledEngine, PoolLimits
from periscope.pool.pool import ModelPool
from periscope.serving.control import ControlService
from periscope.serving.models import DisabledImages, ModelNames, ServedModel
from periscope.serving.requests import LiveRequests
from periscope.serving.service import ChatService
from periscope.vision.backends.leased import LeasedCaptioner, VisionLanguage
from periscope.vision.captioner import CaptionerId
from periscope.vision.images.in_flight import BytesInFlight
from periscope.vision.images.limits import ImageLimits
from periscope.vision.intake import ImageIntake
from periscope.vision.prompts import DEFAULT_CAPTION_PROMPT
from periscope.vision.proxy import VisionProxy
from periscope.vision.readers.find import INSTALL, ReaderKind, find_reader
from periscope.vision.readers.reader import TextReader
from periscope.vision.reading import ImageReading
from periscope.vision.settings import OnError, ProxySettings, ReadingSettings

if TYPE_CHECKING:
    from types import TracebackType

logger = logging.getLogger(__name__)

#: What `params.mem` counts in; as everywhere in the configuration, MB are powers of 1000.
MB = 1_000_000
#: Threads that read and decode images. Decoding is C code that lets go of the interpreter.
NUM_DECODE_THREADS = 2


@runtime_checkable
class ImageDescriber(PooledEngine, VisionLanguage, Protocol):
    """A vision-language model in the pool, whichever process it runs in."""


class Runtime:
    """Owns all rooms of one Periscope. Build it from a Config, `start` it, `stop` it; all on one event loop."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.bus = EventBus()
        self._turn = DeviceTurn(config.captioner_share)
        self._decoding = ThreadPoolExecutor(NUM_DECODE_THREADS, thread_name_prefix="periscope-decode")
        self._reading = ThreadPoolExecutor(1, thread_name_prefix="periscope-read")
        self._reader = cache(_installed_reader)  # one for all text models that ask for the same: it takes memory
        self._memory = DeviceMemory(config.memory.budget)
        limits = PoolLimits(
            budget_bytes=self._memory.budget_bytes(),
            max_waiting=config.server.limits.max_waiting,
            wait_timeout_s=config.server.limits.wait_timeout_s,
        )
        specs = [self._spec(model) for model in config.models]
        self._pool = ModelPool(specs, self.bus, limits, memory=self._memory)
        self._captioners = {
            model.name: self._captioner(model) for model in config.models if model.kind is ModelKind.CAPTIONER
        }
        requests = LiveRequests(self.bus.publish)
        names = ModelNames(self._served(model) for model in config.models if model.kind is ModelKind.TEXT)
        in_flight = BytesInFlight(
            config.server.limits.max_image_bytes_in_flight, wait_timeout_s=config.server.limits.wait_timeout_s
        )
        reading = ImageReading(
            CaptionCache(), executor=self._reading, wait_timeout_s=config.server.limits.wait_timeout_s
        )
        proxy = VisionProxy(
            CaptionCache(), intake=ImageIntake(executor=self._decoding, in_flight=in_flight), reading=reading
        )
        self.service = ChatService(names, self._pool, proxy, requests)
        self.control = ControlService(
            self.service, self._pool, names, requests, self.bus, version=__version__, read_memory=_read_memory
        )

    async def start(self) -> None:
        """Load what is to be loaded at start, side by side, and wait for it. Failures are in `service.health()`."""
        WiredLimit.set_once(self.config.memory.wired_limit)
        await self._pool.preload(model.name for model in self.config.models if model.preload)

    def stop_admitting(self) -> None:
        """Idempotent: new requests are refused and event streams end; what runs goes on."""
        self.service.stop_admitting()
        self.control.stop()

    async def stop(self, *, drain_s: float = 0.0) -> None:
        """Idempotent: refuse new requests, let running ones finish for up to `drain_s`, free every model."""
        self.stop_admitting()
        await self._pool.close(drain_s=drain_s)
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
        source, settings = _source(model), engine_config(model, self.config)

        async def measured() -> Footprint:
            return await asyncio.to_thread(measure, source, settings, kind=model.kind)

        async def load(progress: LoadProgress) -> PooledEngine:
            match model.kind:
                case ModelKind.TEXT:
                    return await InferenceEngine.load(
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
        kind: type[ImageDescriber] = ImageDescriber  # type: ignore[type-abstract]  # nobody makes one of it
        return LeasedCaptioner(
            lambda tell: self._pool.lease(model.name, kind, tell=tell),
            _captioner_id(model),
            wait_timeout_s=self.config.server.limits.wait_timeout_s,
        )

    def _served(self, model: ModelConfig) -> ServedModel:
        capabilities = model.capabilities
        vision = capabilities.vision_proxy if capabilities.vision_mode is VisionMode.PROXY else None
        captioner = None
        if vision is not None and vision.model is not None:
            captioner = self._captioners[require_model(self.config.models, vision.model).name]
        return ServedModel(
            name=model.name,
            aliases=model.aliases,
            created=int(time.time()),
            context_length=_peek_context_length(model),
            vision=capabilities.vision_mode,
            params=model.params.generation,
            captioner=captioner,
            proxy=None
            if vision is None
            else _proxy_settings(vision, self._reader(ReaderKind(vision.reader), vision.reader_languages)),
            disabled_images=DisabledImages(capabilities.images_when_disabled),
        )


def _source(model: ModelConfig) -> str:
    """A folder or a hub id, as the engine takes it."""
    return _unpacked(model.local_path or model.hf_id or "")


def _unpacked(source: str) -> str:
    """`embedded:...` as the folder it means; anything else as it is."""
    return str(EMBEDDED_MODELS.get(source, source))


def engine_config(model: ModelConfig, config: Config) -> EngineConfig:
    """Pure: how the engine is to run this model."""
    params = model.params
    draft = None if params.draft_model is None else find_model(config.models, params.draft_model)
    return EngineConfig(
        revision=model.revision,
        dtype=params.dtype,
        max_num_seqs=params.max_num_seqs,
        prefill_chunk_size=params.prefill_chunk_size,
        context_length=params.context_length,
        chat_template_kwargs=dict(params.chat_template_kwargs),
        kv_limit_bytes=None if params.mem is None else params.mem * MB,
        prompt_cache_bytes=params.prompt_cache,
        checks_memory=config.memory.check_requests,
        draft_model=_source(draft) if draft else params.draft_model and _unpacked(params.draft_model),
        draft_revision=draft.revision if draft else None,
        num_draft_tokens=params.num_draft_tokens,
    )


def _captioner_id(model: ModelConfig) -> CaptionerId:
    return CaptionerId(name=model.name, revision=f"{_source(model)}@{model.revision or 'main'}")


def _proxy_settings(vision: VisionProxyConfig, reader: TextReader | None) -> ProxySettings:
    limits = ImageLimits(
        max_bytes=vision.max_image_bytes,
        max_source_pixels=vision.max_source_pixels,
        max_side_px=vision.max_side_px,
        max_images=vision.max_images,
    )
    return ProxySettings(
        prompt=vision.prompt_template or DEFAULT_CAPTION_PROMPT,
        max_tokens=vision.max_tokens,
        timeout_s=vision.timeout_s,
        on_error=OnError(vision.on_error),
        use_question=vision.use_question,
        limits=limits,
        reading=None
        if reader is None
        else ReadingSettings(reader, max_chars=vision.reader_max_chars, timeout_s=vision.reader_timeout_s),
    )


def _installed_reader(kind: ReaderKind, languages: tuple[str, ...]) -> TextReader | None:
    """The reader of this kind, with a line in the log; None if none is installed.

    Raises:
        ConfigError: it is asked for by name and cannot run here.
    """
    reader = find_reader(kind, languages)
    if reader is not None:
        logger.info("reader: %s", reader.name)
    elif kind is not ReaderKind.NONE:
        logger.info("reader: none; text in images is read with %s", INSTALL)
    return reader


def _peek_context_length(model: ModelConfig) -> int | None:
    """What the model's files say, if they are on this disk; nothing is loaded."""
    try:
        path = find_on_disk(_source(model), model.revision)
        return context_length_of(read_model_config(path), model.params.context_length)
    except ModelLoadError:
        return model.params.context_length


def _read_memory() -> tuple[int, int, int]:
    """Bytes that MLX uses, keeps ready, and has used at most, in this process."""
    return mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory()
