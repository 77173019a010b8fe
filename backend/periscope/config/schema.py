"""The settings: every key of models.yaml with its type, default, bounds, unit and meaning. Pure data, frozen.

Python names are the file's keys, except where a key hides its unit (`ttl` is `ttl_s` here). Nothing in this module
reads files, the environment or flags, and nothing here knows what a setting does.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import WithJsonSchema

from periscope.config.quantities import BYTES, SECONDS
from periscope.core import GenerationParams, ModelKind, OriginPattern, VisionMode

KIB, MIB, GIB, TIB = 1024, 1024**2, 1024**3, 1024**4
DAY_S = 86_400.0

_NAME = r"^[\w.:@+-]+(/[\w.:@+-]+)*$"
_HUB_ID = r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9_][\w.-]*)?$"
_HOST = r"^[^\s/]+$"
_ALLOWED_HOST = r"^(\*|[^\s/*]+)$"
_API_KEY = r"^[!-~]+$"
_BASE_URL = r"^https?://[^\s/?#@]+[^\s?#@]*$"
_ENV_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"

#: What to tell a person whose text does not match one of the patterns above.
PATTERN_MEANINGS = {
    _NAME: "should be made of letters, digits and . _ - : @ + with single slashes between",
    _HUB_ID: "should be a Hugging Face repository such as mlx-community/Qwen3-4B-Instruct-2507-4bit",
    _HOST: "should be a host name or an IP address",
    _ALLOWED_HOST: "should be a host name or an IP address, or * for any",
    _API_KEY: "should be printable ASCII without spaces",
    _BASE_URL: "should be a URL such as http://127.0.0.1:8000/v1, without user name, query or fragment",
    _ENV_NAME: "should be the name of an environment variable, such as VLM_API_KEY, and not the key itself",
}


def _origin(text: str) -> str:
    OriginPattern.parse(text)
    return text


class DType(StrEnum):
    """Type of the weights in memory."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


_DTYPE_SHORT = {"f32": DType.FLOAT32, "f16": DType.FLOAT16, "bf16": DType.BFLOAT16}
_DTYPE_WORDS = (*DType, *_DTYPE_SHORT, "auto")


def _dtype(value: object) -> object:
    if value == "auto":
        return None
    if isinstance(value, str) and value in {*DType, *_DTYPE_SHORT}:
        return _DTYPE_SHORT.get(value) or DType(value)
    raise ValueError(f"should be one of {', '.join(_DTYPE_WORDS)}")


def read_vision_mode(value: object) -> VisionMode:
    """Pure: `disabled`, `proxy` or `native`; `false`, `none` and `off` mean disabled.

    Raises:
        ValueError: for anything else.
    """
    if value is False or value in ("none", "false", "off"):
        return VisionMode.DISABLED
    if isinstance(value, str) and value in set(VisionMode):
        return VisionMode(value)
    raise ValueError("should be disabled, proxy or native")


def _setting(default: Any, description: str, unit: str | None = None, **more: Any) -> Any:
    """A field of the file; `more` are pydantic's bounds and `alias`."""
    return Field(default=default, description=description, json_schema_extra={"unit": unit} if unit else None, **more)


def fields_of(section: type[Section]) -> dict[str, FieldInfo]:
    """Pure: the fields by the key that stands in the file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


class Section(BaseModel):
    """A mapping of the file. A known key with nothing behind it (or `null`) is left at its default."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, data: object) -> object:
        if not isinstance(data, dict):
            return data
        known = fields_of(cls)
        return {key: value for key, value in data.items() if value is not None or key not in known}


class ModelParams(Section):
    """How one model is run, and the sampling its requests get unless they ask for something else."""

    dtype: Annotated[DType | None, BeforeValidator(_dtype), WithJsonSchema({"enum": [*_DTYPE_WORDS, None]})] = _setting(
        None, "Weights in memory: float32, float16 or bfloat16; unset or auto: as in the files."
    )
    mem: int | None = _setting(None, "Memory for KV caches; unset: what the budget leaves.", "MB", ge=16, le=1_048_576)
    prompt_cache: Annotated[int, Field(ge=0, le=64 * TIB), BYTES] | None = _setting(
        None,
        "KV states kept of earlier prompts, oldest go first; 0 is off; unset: a quarter of what KV caches may take.",
        "bytes",
    )
    max_num_seqs: int = _setting(16, "Requests decoded together; more wait in the queue.", "sequences", ge=1, le=512)
    prefill_chunk_size: int = _setting(
        512,
        "Prompt tokens of one forward pass; beside running streams it is computed a few layers at a time.",
        "tokens",
        ge=16,
        le=65_536,
    )
    context_length: int | None = _setting(
        None, "Prompt and completion together; unset: what the model was made for.", "tokens", ge=16, le=16_777_216
    )
    temperature: float | None = _setting(None, "0 is greedy; unset: the model's own default.", "factor", ge=0, le=2)
    top_p: float | None = _setting(None, "1 switches it off.", "probability", ge=0, le=1)
    top_k: int | None = _setting(None, "0 switches it off.", "tokens", ge=0, le=10_000_000)
    min_p: float | None = _setting(None, "0 switches it off.", "probability", ge=0, le=1)
    repetition_penalty: float | None = _setting(
        None, "1 switches it off; counts prompt and completion.", "factor", ge=0.01, le=10
    )
    frequency_penalty: float | None = _setting(
        None, "0 switches it off; counts the completion only.", "logits", ge=-2, le=2
    )
    presence_penalty: float | None = _setting(
        None, "0 switches it off; counts the completion only.", "logits", ge=-2, le=2
    )
    max_tokens: int | None = _setting(
        None, "Completion limit; unset: what the context leaves.", "tokens", ge=1, le=16_777_216
    )
    chat_template_kwargs: dict[str, JsonValue] = _setting(
        {}, "Passed to the chat template as they stand, e.g. {enable_thinking: false}."
    )
    draft_model: str | None = _setting(
        None, "Small model that drafts tokens: an entry's name, a hub id or a directory.", min_length=1, max_length=500
    )
    num_draft_tokens: int = _setting(4, "Drafted at a time, then checked together.", "tokens", ge=1, le=16)

    @property
    def generation(self) -> GenerationParams:
        """The default sampling, in the words of the rooms below."""
        return GenerationParams(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
        )


class VisionProxyConfig(Section):
    """Who captions the images of a text model's requests, how, and within which limits."""

    model: str | None = _setting(None, "Name or alias of the entry that captions. Either this or hf_id.")
    hf_id: str | None = _setting(
        None,
        "Hugging Face repository that captions; adds an entry for it unless there is one.",
        pattern=_HUB_ID,
        max_length=200,
    )
    prompt_template: str | None = _setting(
        None,
        "What the captioner is asked; unset: the text first, word for word, then a description.",
        min_length=1,
        max_length=20_000,
    )
    max_tokens: int = _setting(256, "Longest caption.", "tokens", ge=1, le=8192)
    timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = _setting(
        60.0, "For all captions of a request; loads and waits for other requests do not count.", "seconds"
    )
    on_error: Literal["marker", "error"] = _setting(
        "marker",
        "Captioner broken: marker tells the model that the image could not be read; error answers 503. Busy is a 503.",
    )
    max_images: int = _setting(
        8,
        "New captions made for one request, newest first; the rest get a marker and keep it. Known ones do not count.",
        "images",
        ge=1,
        le=256,
    )
    max_image_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = _setting(20 * MIB, "One image file.", "bytes")
    max_source_pixels: int = _setting(
        50_000_000, "Read from the header, before decoding.", "pixels", ge=1, le=1_000_000_000
    )
    max_side_px: int = _setting(
        1024, "Longest side that the captioner sees; larger is scaled down.", "pixels", ge=28, le=8192
    )
    use_question: bool = _setting(False, "Show the captioner the text of the image's own message too.")
    reader: Literal["auto", "apple_vision", "rapidocr", "none"] = _setting(
        "auto", "Reads text in images to the letter, beside the caption; auto: what is installed of the two."
    )
    reader_languages: tuple[str, ...] = _setting(
        (), "In order of preference, such as [en-US, de-DE]; for apple_vision. Empty: it finds out."
    )
    reader_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = _setting(
        20.0, "For one image, waits for others not counted; then its block says that its text was not read.", "seconds"
    )
    reader_max_chars: int = _setting(
        8000, "Longest text of one image; the rest is cut off.", "characters", ge=1, le=1_000_000
    )
    documents: Literal["auto", "text", "pages", "both"] = _setting(
        "auto",
        "Of a PDF: text, pages as pictures, or both; auto: text, and as pictures pages without any or with figures.",
    )
    max_document_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = _setting(
        32 * MIB, "One PDF or text file.", "bytes"
    )
    max_document_pages: int = _setting(100, "Of one PDF; more is refused.", "pages", ge=1, le=10_000)
    max_page_px: int = _setting(2000, "Longest side of a page's picture.", "pixels", ge=28, le=8192)
    document_max_chars: int = _setting(
        100_000, "Text of one document; the rest is cut off, and its block says so.", "characters", ge=1, le=10_000_000
    )


class RemoteConfig(Section):
    """A captioner that another server runs, and how that is asked."""

    backend: Literal["vllm", "lmdeploy", "triton", "openai"] = _setting(
        "openai", "Which server it is: vllm, lmdeploy, triton (also trtllm-serve), or openai for any other like them."
    )
    base_url: str = Field(
        pattern=_BASE_URL, max_length=2000, description="Its OpenAI API, e.g. http://127.0.0.1:8000/v1."
    )
    model: str = Field(min_length=1, max_length=500, description="The model, as GET /v1/models of the server lists it.")
    api_key_env: str | None = _setting(
        None, "Environment variable that holds the server's API key.", pattern=_ENV_NAME, max_length=200
    )
    ca_file: str | None = _setting(
        None, "PEM file of the authority that vouches for its TLS certificate; unset: the usual ones.", min_length=1
    )
    connect_timeout_s: Annotated[float, Field(ge=0.1, le=600), SECONDS] = _setting(
        5.0, "Longest wait for a connection.", "seconds"
    )
    read_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] | None = _setting(
        None, "Longest silence while it works on a caption; unset: only timeout_s of the captions counts.", "seconds"
    )
    max_concurrent: int = _setting(
        4, "Images it is asked about at once; more wait their turn, and busy is a 503.", "images", ge=1, le=1024
    )
    num_retries: int = _setting(
        2, "Further tries of an image, where nobody listens or the server is busy.", "tries", ge=0, le=10
    )
    stream: bool = _setting(False, "Ask for captions as streams, for a gateway that cuts off long silences.")
    extra_body: dict[str, JsonValue] = _setting({}, "Fields added to each of its requests, e.g. {top_k: 1}.")


class Capabilities(Section):
    """What a model does with the images of a request."""

    vision_mode: Annotated[
        VisionMode,
        BeforeValidator(read_vision_mode),
        WithJsonSchema({"enum": [*VisionMode, "none", "false", "off", False]}),
    ] = _setting(
        VisionMode.DISABLED, "disabled refuses images, proxy has them captioned, native shows them to the model."
    )
    vision_proxy: VisionProxyConfig | None = _setting(None, "The captioner; vision_mode: proxy needs it.")
    images_when_disabled: Literal["reject", "placeholder"] = _setting(
        "reject", "With vision disabled, images of earlier turns and tool results: refuse, or say one was here."
    )


class ModelEntry(Section):
    """One model as the file describes it."""

    name: str = Field(pattern=_NAME, max_length=200, description="What clients call the model; unique.")
    hf_id: str | None = _setting(
        None, "Hugging Face repository. This, local_path or remote.", pattern=_HUB_ID, max_length=200
    )
    local_path: str | None = _setting(
        None,
        "Directory of the model, relative to this file, or embedded:text / embedded:captioner.",
        min_length=1,
        max_length=4096,
    )
    revision: str | None = _setting(None, "Branch, tag or commit of hf_id; unset: main.", min_length=1, max_length=200)
    aliases: tuple[Annotated[str, Field(pattern=_NAME, max_length=200)], ...] = _setting(
        (), "Other names for it; `default` always means the first model.", strict=False
    )
    preload: bool = _setting(False, "Load at start instead of at the first request.")
    pin: bool = _setting(False, "Never unload to make room or for idleness.")
    ttl_s: Annotated[float, Field(ge=1, le=365 * DAY_S), SECONDS] | None = _setting(
        None, "Unload after this long without work; unset: idle_unload_secs.", "seconds", alias="ttl"
    )
    remote: RemoteConfig | None = _setting(None, "Another server that captions, instead of a model here.")
    isolated: bool = _setting(False, "Run it in a process of its own, outside captioner_share; captioners only.")
    params: ModelParams = _setting(ModelParams(), "How it is run.")
    capabilities: Capabilities = _setting(Capabilities(), "What it does with images.")


class ModelConfig(ModelEntry):
    """One model as it is served: its captioner is the `name` of another, its `local_path` absolute or embedded."""

    kind: ModelKind = ModelKind.TEXT


class ServerLimits(Section):
    """What the server takes from clients."""

    max_body_bytes: Annotated[int, Field(ge=KIB, le=4 * GIB), BYTES] = _setting(
        224 * MIB, "One request body, decompressed; eight images of 20 MiB fit, in base64.", "bytes"
    )
    max_body_bytes_in_flight: Annotated[int, Field(ge=KIB, le=64 * TIB), BYTES] | None = _setting(
        None,
        "Bodies over 1 MiB of all requests being read at once; more get 503; unset: twice max_body_bytes.",
        "bytes",
    )
    max_text_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = _setting(
        8 * MIB, "What of a body is not a picture in base64.", "bytes"
    )
    receive_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = _setting(
        10.0, "Longest wait for the rest of a request that a client began to send; then 408.", "seconds"
    )
    min_receive_rate: Annotated[int, Field(ge=1, le=GIB), BYTES] = _setting(
        4 * KIB, "A client that sends this much a second is waited for however long it takes.", "bytes"
    )
    send_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = _setting(
        30.0, "A client that takes none of its answer for this long is cut off, its request cancelled.", "seconds"
    )
    max_image_bytes_in_flight: Annotated[int, Field(ge=MIB, le=64 * TIB), BYTES] = _setting(
        512 * MIB,
        "Images of all requests being read and described at once; as much again waits, then 503.",
        "bytes",
    )
    max_waiting: int = _setting(
        10, "Requests waiting per model beyond the batch; more get 503.", "requests", ge=0, le=100_000
    )
    wait_timeout_s: Annotated[float, Field(ge=0.1, le=DAY_S), SECONDS] = _setting(
        30.0, "Longest wait for a place in the batch, loading left out; then 503.", "seconds"
    )

    @property
    def body_bytes_in_flight(self) -> int:
        """`max_body_bytes_in_flight`, or what stands for it where it is unset."""
        return 2 * self.max_body_bytes if self.max_body_bytes_in_flight is None else self.max_body_bytes_in_flight


class ServerConfig(Section):
    """The HTTP side."""

    host: str = _setting(
        "127.0.0.1", "Address to listen on; anything but loopback needs api_key.", pattern=_HOST, max_length=253
    )
    port: int = _setting(7374, "0 takes any free port.", "port", ge=0, le=65_535)
    api_key: str | None = _setting(
        None,
        "Clients send it as Bearer token or x-api-key; better set in the environment.",
        pattern=_API_KEY,
        max_length=1000,
        repr=False,
    )
    cors_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = _setting(
        (), "Web pages allowed to call, e.g. http://localhost:* or https://*.example.com; * is any.", strict=False
    )
    allowed_hosts: tuple[Annotated[str, Field(pattern=_ALLOWED_HOST)], ...] = _setting(
        (), "Host headers answered besides loopback names and server.host.", strict=False
    )
    heartbeat_s: Annotated[float, Field(ge=0.05, le=10), SECONDS] = _setting(
        10.0, "Longest silence in a stream.", "seconds"
    )
    always_include_usage: bool = _setting(False, "Streams end with a usage chunk even when the client did not ask.")
    status_as_comments: bool = _setting(
        False, "Heartbeats and wait states are SSE comments instead of chunks with an empty delta."
    )
    limits: ServerLimits = _setting(ServerLimits(), "What the server takes from clients.")


class MemoryConfig(Section):
    """What models may take."""

    budget: Annotated[int, Field(ge=16 * MIB, le=64 * TIB), BYTES] | None = _setting(
        None, "For all models together; unset: what Metal recommends.", "bytes"
    )
    wired_limit: Annotated[int, Field(ge=16 * MIB, le=64 * TIB), BYTES] | None = _setting(
        None, "Kept from being paged out; unset: what Metal recommends.", "bytes"
    )
    check_requests: bool = _setting(True, "Refuse a request that cannot fit before it is computed.")


class CaptionCacheConfig(Section):
    """Captions that were made, so that no picture is described twice."""

    persist: bool = _setting(True, "Keep captions in a file, so that they survive a restart; else in memory only.")
    path: str | None = _setting(
        None,
        "The file, relative to this one; unset: periscope/captions.sqlite3 in $XDG_CACHE_HOME or ~/.cache.",
        min_length=1,
        max_length=4096,
    )
    max_bytes: Annotated[int, Field(ge=MIB, le=GIB), BYTES] = _setting(
        64 * MIB, "Captions in memory and in the file; the least recently used go first.", "bytes"
    )


class ConfigFile(Section):
    """models.yaml."""

    idle_unload_s: Annotated[float, Field(ge=1, le=365 * DAY_S), SECONDS] | None = _setting(
        None, "Unload any model after this long without work; unset: never.", "seconds", alias="idle_unload_secs"
    )
    captioner_share: float = _setting(
        0.25, "Part of the device's time that captioners get while text is being generated.", "share", ge=0.05, le=0.95
    )
    server: ServerConfig = _setting(ServerConfig(), "The HTTP side.")
    memory: MemoryConfig = _setting(MemoryConfig(), "What models may take.")
    caption_cache: CaptionCacheConfig = _setting(
        CaptionCacheConfig(), "Captions that were made, so that no picture is described twice."
    )
    models: tuple[ModelEntry, ...] = Field(
        strict=False, min_length=1, description="Every model; the first text model is the default."
    )
