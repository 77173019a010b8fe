"""What every room knows of a model: its kind, its state, what it takes, what clients are told, its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from periscope.core.params import GenerationParams

#: Bits in which KV caches may be stored, and how many neighbouring numbers may share a scale then.
KV_BITS = (8, 4)
KV_GROUP_SIZES = (32, 64, 128)


class VisionMode(StrEnum):
    """What happens to a request's images: refused, captioned for the text model, or shown to the model itself."""

    DISABLED = "disabled"
    PROXY = "proxy"
    NATIVE = "native"


class ModelKind(StrEnum):
    """What a configured model is there for: to answer, only to caption images for models that do, or to embed texts."""

    TEXT = "text"
    CAPTIONER = "captioner"
    EMBEDDING = "embedding"


class Pooling(StrEnum):
    """How the hidden states of a text's tokens become one vector: that of the first or last token, or their mean."""

    CLS = "cls"
    MEAN = "mean"
    LAST = "last"


class ModelState(StrEnum):
    """Where a configured model is on its way into memory and out of it."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"

    @property
    def is_resident(self) -> bool:
        """Whether its weights are in memory, so that requests may be using them."""
        return self is ModelState.READY or self is ModelState.DRAINING

    @property
    def is_out(self) -> bool:
        """Nothing of it is in memory or on its way there."""
        return self is ModelState.UNLOADED or self is ModelState.FAILED


@dataclass(frozen=True, slots=True)
class Footprint:
    """How much memory a model takes, estimated before it is loaded.

    Attributes:
        weights_bytes: of the loaded parameters, those of a draft model among them.
        reserve_bytes: room for work beside them, without which the model would be of no use.
    """

    weights_bytes: int
    reserve_bytes: int

    @property
    def total_bytes(self) -> int:
        """What must be free for a load."""
        return self.weights_bytes + self.reserve_bytes


@dataclass(frozen=True, slots=True)
class EngineMemory:
    """How much memory a loaded model takes now.

    Attributes:
        weights_bytes: of its parameters, those of a draft model among them.
        working_bytes: what its running requests take beside the weights, approximately.
        prompt_cache_bytes: what the prompt cache takes; it is freed when the memory is needed.
        num_preemptions: rows that gave up their memory and were computed again, since its batch was made.
        prompt_disk_bytes: KV states of earlier prompts that are on disk.
        prompt_disk_written_bytes: of such states, since it was loaded.
        num_accepted_tokens, num_rejected_tokens: tokens that were drafted since, and were right, and were not.
    """

    weights_bytes: int = 0
    working_bytes: int = 0
    prompt_cache_bytes: int = 0
    num_preemptions: int = 0
    prompt_disk_bytes: int = 0
    prompt_disk_written_bytes: int = 0
    num_accepted_tokens: int = 0
    num_rejected_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """What a model's files say of it. None = they do not say, or are not on this disk.

    Attributes:
        context_length: tokens that the model was trained for, however few it is run with here.
        model_type: the architecture, such as `qwen3`.
        quantization: `4bit`, `mxfp4`; of weights that are not quantised their type, such as `bfloat16`.
        weights_bytes: size of the weights' files.
        sampling: that of the model's author.
    """

    context_length: int | None = None
    model_type: str | None = None
    quantization: str | None = None
    weights_bytes: int | None = None
    sampling: GenerationParams = GenerationParams()


@dataclass(frozen=True, slots=True)
class DefaultParam:
    """A param's default, and the file that says so: `models.yaml` or `generation_config.json`."""

    value: float
    source: str


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What clients are told about a configured model; known before anything is loaded.

    Attributes:
        context_length: tokens, prompt and completion together; None until it is known.
        is_batched: requests that run together share forward passes, which some architectures cannot; None until the
            model was loaded.
        max_running: requests that may hold the model at once.
        chat_template: its Jinja source; None until the model was loaded, and for a model without one.
        sampling: what a request that leaves it open is sampled with, and where that is said, by the param's name. What
            is nowhere said is not listed.
        embedding_size: numbers in a vector of an embedding model; None until it was loaded, and for other models.
        kv_bits: bits in which KV caches are stored; None = as the model computes them, or another server's business.
        error: why it failed, for the user.
    """

    name: str
    aliases: tuple[str, ...]
    created: int
    context_length: int | None
    vision: VisionMode
    has_tools: bool | None
    has_reasoning: bool | None
    is_batched: bool | None
    state: ModelState
    max_running: int = 1
    chat_template: str | None = None
    files: ModelFiles = ModelFiles()
    sampling: Mapping[str, DefaultParam] = field(default_factory=dict)
    kind: ModelKind = ModelKind.TEXT
    embedding_size: int | None = None
    kv_bits: int | None = None
    error: str | None = None

    @property
    def sees(self) -> bool:
        """A request may hold pictures: the model gets their pixels, or what its captioner says of them."""
        return self.vision is not VisionMode.DISABLED

    @property
    def is_loaded(self) -> bool:
        """A request would find the model in memory and ready."""
        return self.state is ModelState.READY


#: Which files of a hub repository make up a model, and which of those are a second copy of its weights that nobody
#: reads. `/` is matched by `*`. What was fetched and what is looked for on the disk must be the same files.
MODEL_FILES = ("*.safetensors", "*.json", "*.jsonl", "*.jinja", "*.model", "*.tiktoken", "*.txt")
NOT_MODEL_FILES = ("*consolidated*.safetensors", "original/*", "onnx/*")


@dataclass(frozen=True, slots=True)
class ConfigChanges:
    """What a models.yaml that was read again means: names of models, and keys of settings.

    Attributes:
        reloaded: they run on other weights, or in another way, from their next load on; what was loaded is unloaded.
        updated: their other settings hold from now on, and they stay in memory.
        needs_restart: these settings stay as they were until the server starts anew.
        mcp_servers: names of those that are new, gone or have other settings.
    """

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reloaded: tuple[str, ...] = ()
    updated: tuple[str, ...] = ()
    needs_restart: tuple[str, ...] = ()
    mcp_servers: tuple[str, ...] = ()


class DownloadCommand(StrEnum):
    """What can be done with a download that was begun."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
