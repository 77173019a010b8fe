"""Config -> all its models, ready to be used: how the pool loads each, who captions for it, what requests may name.

Nothing here is in use yet. Whatever cannot be made is raised before the running models are touched.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from periscope.config import Config, ModelConfig, RemoteConfig, VisionProxyConfig
from periscope.config.named import captioner_name
from periscope.core import ConfigChanges, Footprint, ModelKind, ModelState, Tell, VisionMode, require_model
from periscope.engine import EmbeddingEngine, VisionLanguageEngine
from periscope.engine.device.memory import DeviceMemory
from periscope.engine.device.turn import DeviceTurn
from periscope.engine.loading.footprint import measure
from periscope.errors import FilesMissing
from periscope.events import Event, ModelStateChanged
from periscope.pool.contracts import LoadProgress, ModelSpec, PooledEngine
from periscope.serving.generation import LocalGenerator
from periscope.serving.models import DisabledImages, ServedEmbedder, ServedModel, Variant
from periscope.vision.backends.leased import ImageDescriber, LeasedCaptioner
from periscope.vision.captioner_families import ANY_CAPTIONER
from periscope.vision.readers.find import ReaderKind
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.readers.reader import TextReader
from periscope.vision.settings import ProxySettings
from periscope.wiring import (
    captioner_id,
    engine_config,
    family_of_captioner,
    installed_reader,
    model_reader,
    peek_files,
    peek_max_tokens,
    proxy_settings,
    source_of,
    warm_texts,
)

if TYPE_CHECKING:
    from periscope.engine.isolated.engine import IsolatedVisionLanguageEngine
    from periscope.vision.backends.remote import RemoteCaptioner

#: A caption has a few kilobytes. A server whose answer is longer has gone astray.
MAX_CAPTION_ANSWER_BYTES = 1024 * 1024


@runtime_checkable
class PooledDescriber(PooledEngine, ImageDescriber, Protocol):
    """A vision-language model in the pool, whichever process it runs in."""


AnyCaptioner: TypeAlias = "LeasedCaptioner | RemoteCaptioner"
#: Leases a model of the pool, of this kind, by name.
Lease: TypeAlias = Callable[[str, type[PooledDescriber], Tell], AbstractAsyncContextManager[PooledDescriber]]


@dataclass(frozen=True, slots=True)
class Roster:
    """All models of one configuration.

    Attributes:
        specs: of those that are loaded in this process, or in one of their own.
        captioners: by name, those on other servers among them.
        served: the text models, the default one first.
        embedders: the embedding models, the default one of them first.
    """

    config: Config
    specs: tuple[ModelSpec, ...]
    captioners: Mapping[str, AnyCaptioner]
    served: tuple[ServedModel, ...]
    embedders: tuple[ServedEmbedder, ...]

    @property
    def remote(self) -> dict[str, RemoteCaptioner]:
        """The captioners on other servers."""
        return {name: each for name, each in self.captioners.items() if not isinstance(each, LeasedCaptioner)}

    @property
    def only_captioners(self) -> list[ModelConfig]:
        """The entries of models that describe pictures and answer nothing."""
        return [model for model in self.config.models if model.kind is ModelKind.CAPTIONER]

    @property
    def preloaded(self) -> list[str]:
        """The models that are loaded at start."""
        return [model.name for model in self.config.models if model.preload and model.remote is None]


class Assembly:
    """Makes rosters from what all models share; holds nothing of any of them. `roster` may run on any thread."""

    def __init__(
        self,
        *,
        turn: DeviceTurn,
        memory: DeviceMemory,
        decoding: Executor,
        publish: Callable[[Event], None],
        lease: Lease,
    ) -> None:
        self._turn = turn
        self._memory = memory
        self._decoding = decoding
        self._publish = publish
        self._lease = lease
        self._engine_reader = cache(installed_reader)  # one for all text models that ask for the same: it takes memory

    def roster(self, config: Config, before: Roster | None = None) -> Roster:
        """All models of a configuration. Captioners that are as in the roster `before` are taken from it. May block.

        Raises:
            ConfigError: what a model asks for is not installed.
        """
        kept = {} if before is None else {name: before.captioners[name] for name in _same_captioners(before, config)}
        captioners = {
            model.name: kept.get(model.name) or self._captioner(model, config)
            for model in config.models
            if model.kind is ModelKind.CAPTIONER or model.name in map(captioner_name, config.models)
        }
        return Roster(
            config,
            specs=tuple(self._spec(model, config) for model in config.models if model.remote is None),
            captioners=captioners,
            served=tuple(
                self._served(model, config, captioners) for model in config.models if model.kind is ModelKind.TEXT
            ),
            embedders=tuple(
                ServedEmbedder(
                    model.name, model.aliases, int(time.time()), peek_max_tokens(model), peek_files(model)[1]
                )
                for model in config.models
                if model.kind is ModelKind.EMBEDDING
            ),
        )

    def _spec(self, model: ModelConfig, config: Config) -> ModelSpec:
        source, settings = source_of(model), engine_config(model, config)

        async def measured() -> Footprint:
            try:
                return await asyncio.to_thread(measure, source, settings, kind=model.kind)
            except FilesMissing as error:  # under its own name it is pulled with its captioner and its draft model
                raise error.called(model.name) from None

        async def load(progress: LoadProgress) -> PooledEngine:
            match model.kind:
                case ModelKind.TEXT:
                    generator = await LocalGenerator.load(
                        source, settings, turn=self._turn, progress=progress, memory=self._memory
                    )
                    if model.warm:
                        generator.begin_warming(model.name, partial(warm_texts, model))
                    return generator
                case ModelKind.CAPTIONER:
                    engine = _captioner_engine(is_isolated=model.isolated)
                    return await engine.load(source, settings, turn=self._turn, progress=progress)
                case ModelKind.EMBEDDING:
                    return await EmbeddingEngine.load(source, settings, turn=self._turn, progress=progress)

        return ModelSpec(
            model.name,
            measured,
            load,
            kind=model.kind,
            aliases=model.aliases,
            max_running=model.params.max_num_seqs,
            is_pinned=model.pin,
            ttl_s=config.idle_unload_s if model.ttl_s is None else model.ttl_s,
            is_isolated=model.isolated,
            kv_bits=model.params.kv_bits,
        )

    def _captioner(self, model: ModelConfig, config: Config) -> AnyCaptioner:
        if model.remote is not None:
            return self._remote_captioner(model, model.remote, config)
        kind: type[PooledDescriber] = PooledDescriber  # type: ignore[type-abstract]  # nobody makes one of it
        return LeasedCaptioner(
            lambda tell: self._lease(model.name, kind, tell),
            captioner_id(model, config),
            wait_timeout_s=config.server.limits.wait_timeout_s,
        )

    def _remote_captioner(self, model: ModelConfig, remote: RemoteConfig, config: Config) -> RemoteCaptioner:
        from periscope.remote import Endpoint, OpenAIClient, Timeouts
        from periscope.vision.backends.remote import RemoteCaptioner
        from periscope.vision.backends.remote_server import RemoteServer

        key = config.api_keys.get(remote.api_key_env or "")

        def changed(old: ModelState, new: ModelState, reason: str | None) -> None:
            self._publish(ModelStateChanged(model.name, old, new, reason))

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
            wait_timeout_s=config.server.limits.wait_timeout_s,
            max_waiting=config.server.limits.max_waiting,
            on_change=changed,
        )

    def _served(self, model: ModelConfig, config: Config, captioners: Mapping[str, AnyCaptioner]) -> ServedModel:
        capabilities, name = model.capabilities, captioner_name(model)
        entry = None if name is None else require_model(config.models, name)
        context_length, files = peek_files(model)
        variants = tuple(Variant(each.name, each.params.generation, each.template_kwargs) for each in model.variants)
        return ServedModel(
            name=model.name,
            aliases=model.aliases,
            variants=variants,
            created=int(time.time()),
            context_length=context_length,
            vision=capabilities.vision_mode,
            params=model.params.generation,
            captioner=None if entry is None else captioners[entry.name],
            proxy=self._proxy_of(model, entry, config, captioners),
            disabled_images=DisabledImages(capabilities.images_when_disabled),
            files=files,
        )

    def _proxy_of(
        self,
        model: ModelConfig,
        captioner: ModelConfig | None,
        config: Config,
        captioners: Mapping[str, AnyCaptioner],
    ) -> ProxySettings | None:
        """How images are described to this model; None if it is shown none."""
        mode = model.capabilities.vision_mode
        if mode is VisionMode.DISABLED:
            return None
        vision = model.capabilities.vision_proxy or VisionProxyConfig()
        reader = self._reader_of(vision, config, captioners) if mode is VisionMode.PROXY else None
        return proxy_settings(vision, reader, ANY_CAPTIONER if captioner is None else family_of_captioner(captioner))

    def _reader_of(
        self, vision: VisionProxyConfig, config: Config, captioners: Mapping[str, AnyCaptioner]
    ) -> TextReader | ModelReader | None:
        """The OCR engine or the model that reads the text in pictures, if any.

        Raises:
            ConfigError: an engine is asked for that cannot run here.
        """
        if vision.reader_model is None:
            return self._engine_reader(ReaderKind(vision.reader), vision.reader_languages)
        entry = require_model(config.models, vision.reader_model)
        return model_reader(entry, captioners[entry.name], max_tokens=vision.reader_max_tokens)


def changes_between(before: Config, config: Config) -> ConfigChanges:
    """Pure: what a new configuration means for the models. `needs_restart` is not looked at here."""
    old, new = ({model.name: model for model in each.models} for each in (before, config))
    both = [name for name in new if name in old]
    reloaded = [name for name in both if _runs_as(old[name], before) != _runs_as(new[name], config)]
    terms = [name for name in both if _terms_of(old[name], before) != _terms_of(new[name], config)]
    return ConfigChanges(
        added=tuple(name for name in new if name not in old),
        removed=tuple(name for name in old if name not in new),
        reloaded=tuple(reloaded),
        updated=tuple(name for name in terms if name not in reloaded),
    )


def told(changes: ConfigChanges) -> str:
    """The changes in one line, for the log. Pure."""
    words = {
        "new": changes.added,
        "removed": changes.removed,
        "loaded anew": changes.reloaded,
        "other settings for": changes.updated,
        "MCP servers": changes.mcp_servers,
        "only after a restart": changes.needs_restart,
    }
    return "; ".join(f"{word} {', '.join(names)}" for word, names in words.items() if names) or "nothing has changed"


def _runs_as(model: ModelConfig, config: Config) -> tuple[object, ...]:
    """What cannot change without loading the model anew; of one on another server, what makes its captioner."""
    if model.remote is not None:
        return (model.remote, config.api_keys.get(model.remote.api_key_env or ""))
    return (source_of(model), engine_config(model, config), model.kind, model.isolated)


def _terms_of(model: ModelConfig, config: Config) -> tuple[object, ...]:
    is_unloaded_when_idle = model.remote is None and model.ttl_s is None
    return (model, config.idle_unload_s if is_unloaded_when_idle else model.ttl_s)


def _same_captioners(before: Roster, config: Config) -> list[str]:
    """The captioners whose connections, waiting requests and health, or whose weights, stay as they are."""
    old = {model.name: model for model in before.config.models}
    return [
        model.name
        for model in config.models
        if model.name in before.captioners and _runs_as(old[model.name], before.config) == _runs_as(model, config)
    ]


def _captioner_engine(*, is_isolated: bool) -> type[VisionLanguageEngine | IsolatedVisionLanguageEngine]:
    if not is_isolated:
        return VisionLanguageEngine
    from periscope.engine.isolated.engine import IsolatedVisionLanguageEngine

    return IsolatedVisionLanguageEngine
