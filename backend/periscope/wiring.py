"""Makes the settings and small parts of the other packages from a Config. The composition root owns what it makes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from periscope.captions.cache import CaptionCache
from periscope.captions.store import CaptionStore
from periscope.config import (
    CaptionCacheConfig,
    Config,
    ModelConfig,
    PromptCacheConfig,
    RemoteImagesConfig,
    VisionProxyConfig,
)
from periscope.config.named import find_named, reader_name, with_companions
from periscope.config.params_schema import is_template
from periscope.core import ModelFiles, ModelKind, VisionMode, find_model
from periscope.demo import EMBEDDED_MODELS
from periscope.engine import EngineConfig
from periscope.engine.config import StatesOnDisk
from periscope.engine.loading.embedding_files import EmbeddingFiles
from periscope.engine.loading.generation_config import authors_sampling
from periscope.engine.loading.loader import context_length_of, find_on_disk, quantization_of, read_model_config
from periscope.engine.loading.weights_id import weights_id
from periscope.errors import ConfigError, InvalidRequest, ModelLoadError
from periscope.turns import TurnStore
from periscope.vision.captioner import Captioner, CaptionerId
from periscope.vision.captioner_families import CaptionerFamily, captioner_family
from periscope.vision.documents.settings import DocumentMode, DocumentSettings, HTMLMode
from periscope.vision.images.limits import ImageLimits
from periscope.vision.prompts import QUESTION_FORM
from periscope.vision.readers.find import INSTALL, ReaderKind, find_reader
from periscope.vision.readers.model_families import family_of
from periscope.vision.readers.model_reader import ModelReader
from periscope.vision.readers.reader import TextReader
from periscope.vision.settings import OnError, ProxySettings, ReadingSettings
from periscope.vision.videos.settings import VideoSettings

if TYPE_CHECKING:
    from periscope.remote import PictureFetcher

logger = logging.getLogger(__name__)

#: The unit of `params.mem`; as everywhere in the configuration, MB are powers of 1000.
MB = 1_000_000


def backend_and_model(model: ModelConfig) -> str:
    """The captioner's name in the log at start."""
    if (remote := model.remote) is None:
        return f"mlx/{model.name}"
    return f"{remote.backend}/{remote.model} at {remote.base_url}"


def source_of(model: ModelConfig) -> str:
    """The folder or hub id of the model, as the engine takes it."""
    return _unpacked(model.local_path or model.hf_id or "")


def _unpacked(source: str) -> str:
    """The folder of `embedded:...`; anything else unchanged."""
    return str(EMBEDDED_MODELS.get(source, source))


def downloads_of(config: Config, asked: str, *, alone: bool) -> list[tuple[str, str | None]]:
    """What is fetched for a model: hub ids and revisions, its own first. Pure.

    Args:
        alone: without its captioner, its reader and its draft model.

    Raises:
        ModelNotFound: it is neither configured nor a hub id.
        InvalidRequest: its files do not come from the hub.
    """
    model = find_named(config, asked)
    if model.hub_id is None:
        raise InvalidRequest(f"{model.why_kept}: there is nothing to fetch.", param="model")
    wanted = (model,) if alone else with_companions(config, model)
    return [(each.hub_id, each.revision) for each in wanted if each.hub_id is not None]


def engine_config(model: ModelConfig, config: Config) -> EngineConfig:
    """The engine's settings for this model. Reads its config.json if it is on this disk."""
    params = model.params
    draft = None if params.draft_model is None else find_model(config.models, params.draft_model)
    return EngineConfig(
        revision=model.revision,
        dtype=params.dtype,
        max_num_seqs=params.max_num_seqs,
        prefill_chunk_size=params.prefill_chunk_size,
        stream_interval_ms=params.stream_interval_ms,
        context_length=params.context_length,
        chat_template_kwargs=params.template_kwargs,
        thinking_end_message=params.thinking_end_message,
        kv_limit_bytes=None if params.mem is None else params.mem * MB,
        prompt_cache_bytes=params.prompt_cache,
        states_on_disk=states_on_disk(config.prompt_cache) if model.kind is ModelKind.TEXT else None,
        kv_bits=params.kv_bits,
        kv_group_size=params.kv_group_size,
        max_image_tiles=max_image_tiles(model, config),
        checks_memory=config.memory.check_requests,
        draft_model=source_of(draft) if draft else params.draft_model and _unpacked(params.draft_model),
        draft_revision=draft.revision if draft else None,
        num_draft_tokens=params.num_draft_tokens,
        prompt_lookup=params.prompt_lookup,
        chat_template=_template(model),
        tool_parser=params.tool_parser,
        reasoning_parser=params.reasoning_parser,
        has_vision=model.capabilities.vision_mode is VisionMode.NATIVE,
        pooling=params.pooling,
        matryoshka=params.matryoshka,
        name=model.name,
    )


def states_on_disk(config: PromptCacheConfig) -> StatesOnDisk | None:
    """Pure: where KV states are kept; None if they are kept in memory only."""
    if not config.persist or config.path is None:
        return None
    return StatesOnDisk(Path(config.path), config.max_bytes, config.write_after_s)


def warm_texts(model: ModelConfig) -> tuple[str, ...]:
    """The system prompts that are computed before anybody asks. Reads those that are files.

    Raises:
        OSError, ValueError: a file cannot be read, or is no UTF-8 text.
    """
    return tuple(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text for text in model.warm)


def _template(model: ModelConfig) -> str | None:
    """The chat template that models.yaml gives the model; None = its own.

    Raises:
        ConfigError: the file cannot be read.
    """
    template = model.params.chat_template
    if template is None or is_template(template):
        return template
    try:
        return Path(template).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ConfigError((f"chat_template of {model.name} cannot be read: {error}",)) from None


def caption_cache(config: CaptionCacheConfig) -> CaptionCache:
    """The caption cache, with its file unless captions are kept in memory only."""
    store = CaptionStore(Path(config.path)) if config.persist and config.path is not None else None
    return CaptionCache(max_bytes=config.max_bytes, store=store)


def turn_store(config: Config) -> TurnStore:
    """The store of responses, with its file unless they are kept in memory only. Opens nothing."""
    settings = config.responses
    path = config.places.state / "responses.sqlite3" if settings.persist else None
    return TurnStore(path, max_bytes=settings.max_bytes, ttl_s=settings.ttl_s)


def picture_fetcher(config: RemoteImagesConfig) -> PictureFetcher:
    """The function that fetches images from the web, within the configured bounds."""
    from periscope.remote import FetchSettings, PictureFetcher

    settings = FetchSettings(config.allow_hosts, timeout_s=config.timeout_s, max_concurrent=config.max_concurrent)
    return PictureFetcher(settings)


def max_image_tiles(model: ModelConfig, config: Config) -> int | None:
    """Tiles of an image for this captioner: as it is set, else as its family has it; None = as its files say.

    A captioner that also reads the text in images gets all its tiles.
    """
    if model.kind is not ModelKind.CAPTIONER or model.params.max_image_tiles is not None:
        return model.params.max_image_tiles
    if any(reader_name(each) == model.name for each in config.models):
        return None
    return family_of_captioner(model).max_image_tiles


def family_of_captioner(model: ModelConfig) -> CaptionerFamily:
    """How this captioner is asked, by its name and, if it is on this disk, its config.json."""
    return captioner_family(*_known_as(model))


def captioner_id(model: ModelConfig, config: Config) -> CaptionerId:
    """The identity of a captioner. Its revision covers the weights and settings, because captions outlive this process.

    The weights of a model that is not downloaded yet are unknown, so its captions are never found again.
    """
    source = source_of(model)
    try:
        weights = weights_id(find_on_disk(source, model.revision))
    except (ModelLoadError, OSError):
        weights = f"unknown-{uuid4().hex}"
    tiles = max_image_tiles(model, config)
    settings = f"{model.params.dtype or 'auto'}{f' {tiles} tiles' if tiles else ''}"
    return CaptionerId(name=model.name, revision=f"{source}@{weights} {settings}")


def proxy_settings(
    vision: VisionProxyConfig, reader: TextReader | ModelReader | None, family: CaptionerFamily
) -> ProxySettings:
    """Pure: the settings of captioning for one text model: what is set wins over the captioner's family."""
    limits = ImageLimits(
        max_bytes=vision.max_image_bytes,
        max_source_pixels=vision.max_source_pixels,
        max_side_px=vision.max_side_px or family.max_side_px,
        max_images=vision.max_images,
    )
    return ProxySettings(
        prompt=vision.prompt_template or family.prompt,
        question_form=QUESTION_FORM if vision.prompt_template else family.question_form,
        look_form=family.look_form,
        max_tokens=vision.max_tokens or family.max_tokens,
        timeout_s=vision.timeout_s,
        on_error=OnError(vision.on_error),
        use_question=vision.use_question,
        max_looks=vision.max_looks,
        limits=limits,
        reading=None
        if reader is None
        else ReadingSettings(reader, max_chars=vision.reader_max_chars, timeout_s=vision.reader_timeout_s),
        documents=DocumentSettings(
            mode=DocumentMode(vision.documents),
            html=HTMLMode(vision.html),
            max_bytes=vision.max_document_bytes,
            max_pages=vision.max_document_pages,
            max_page_px=vision.max_page_px,
            max_chars=vision.document_max_chars,
        ),
        video=VideoSettings(**vision.video.model_dump()),
    )


def installed_reader(kind: ReaderKind, languages: tuple[str, ...]) -> TextReader | None:
    """The reader of this kind, with a line in the log; None if none is installed.

    Raises:
        ConfigError: it is configured by name and cannot run here.
    """
    reader = find_reader(kind, languages)
    if reader is not None:
        logger.info("reader: %s", reader.name)
    elif kind is not ReaderKind.NONE:
        logger.info("reader: none; text in images is read with %s", INSTALL)
    return reader


def model_reader(model: ModelConfig, captioner: Captioner, *, max_tokens: int) -> ModelReader:
    """A model that reads text, asked as its family is; with a line in the log."""
    family = family_of(*_known_as(model))
    logger.info("reader: %s, asked as %s", backend_and_model(model), family.name)
    return ModelReader(captioner, family, max_tokens)


def _known_as(model: ModelConfig) -> tuple[str, ...]:
    """Where the model comes from, and what its files say that it is, if they are on this disk."""
    if model.remote is not None:
        return (model.remote.model,)
    source = source_of(model)
    try:
        return source, str(read_model_config(find_on_disk(source, model.revision)).get("model_type"))
    except ModelLoadError:
        return (source,)


def peek_files(model: ModelConfig) -> tuple[int | None, ModelFiles]:
    """The context length that the model is run with, and what its files say if they are on this disk. Loads nothing."""
    limit = model.params.context_length
    try:
        folder = find_on_disk(source_of(model), model.revision)
        config = read_model_config(folder)
    except ModelLoadError:
        return limit, ModelFiles()
    model_type = config.get("model_type")
    files = ModelFiles(
        context_length_of(config, None),
        model_type if isinstance(model_type, str) else None,
        quantization_of(config),
        sum(file.stat().st_size for file in folder.glob("*.safetensors")),
        authors_sampling(folder),
    )
    return context_length_of(config, limit), files


def peek_max_tokens(model: ModelConfig) -> int | None:
    """Tokens of one text that an embedding model takes, by its files if they are on this disk. Loads nothing."""
    try:
        path = find_on_disk(source_of(model), model.revision)
        return EmbeddingFiles.read(path, read_model_config(path), context_length=model.params.context_length).max_tokens
    except ModelLoadError:
        return model.params.context_length
