"""The settings of images and documents: what a model does with them, which captioner it has, and the limits."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, JsonValue
from pydantic.json_schema import WithJsonSchema

from periscope.config.quantities import BYTES, SECONDS
from periscope.config.section import BASE_URL, ENV_NAME, GIB, HUB_ID, KIB, MIB, Section, setting
from periscope.core import VisionMode

#: What `vision_proxy.reader` may say besides the name of a model.
READER_KINDS: Final = ("auto", "apple_vision", "rapidocr", "none")


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


class VideoConfig(Section):
    """How many frames of a video are captioned, and which videos are accepted."""

    max_frames: int = setting(
        8, "Frames captioned of one video, chosen evenly by time without near duplicates.", "frames", ge=1, le=32
    )
    max_frame_px: int = setting(1024, "Longest side of the image of a frame.", "pixels", ge=28, le=1536)
    max_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(64 * MIB, "Size of a video.", "bytes")
    max_seconds: Annotated[float, Field(ge=1, le=86400), SECONDS] = setting(
        600.0, "Length of a video. A longer one is refused.", "seconds"
    )
    max_source_pixels: int = setting(
        9_000_000, "Pixels of a frame before it is scaled. 4K has 8.3 million.", "pixels", ge=1, le=100_000_000
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        30.0, "Longest time for decoding one video.", "seconds"
    )


class VisionProxyConfig(Section):
    """The captioner of a text model: which it is, how it is used, and its limits."""

    model: str | None = setting(None, "Name or alias of the entry that captions. Give either this or hf_id.")
    hf_id: str | None = setting(
        None,
        "Hugging Face repository of the captioner. An entry is added for it unless there is one.",
        pattern=HUB_ID,
        max_length=200,
    )
    prompt_template: str | None = setting(
        None,
        "The captioner's prompt. If unset, what suits its family: the text word for word, then a description.",
        min_length=1,
        max_length=20_000,
    )
    max_tokens: int | None = setting(
        None, "Longest caption. If unset, what suits the captioner's family: 256 for most.", "tokens", ge=1, le=8192
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        60.0, "Longest time for all captions of a request, not counting loads and waits for other requests.", "seconds"
    )
    on_error: Literal["marker", "error"] = setting(
        "marker",
        "When the captioner fails: marker tells the model that the image could not be read, error answers 503. "
        "Busy is always a 503.",
    )
    max_images: int = setting(
        8,
        "New captions for one request, newest images first. The others get a marker and keep it. "
        "Cached ones do not count.",
        "images",
        ge=1,
        le=256,
    )
    max_image_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(20 * MIB, "Size of an image file.", "bytes")
    max_source_pixels: int = setting(
        50_000_000, "Pixels of an image, read from its header before it is decoded.", "pixels", ge=1, le=1_000_000_000
    )
    max_side_px: int | None = setting(
        None,
        "Longest side of an image for the captioner. Larger images are scaled down. If unset, 1024 for most families.",
        "pixels",
        ge=28,
        le=8192,
    )
    use_question: bool = setting(False, "Give the captioner the text of the image's message, too.")
    max_looks: int = setting(
        0,
        "Times that the text model may look at an image again in one answer, with the tool look. 0 offers no tool.",
        "looks",
        ge=0,
        le=64,
    )
    reader: str = setting(
        "auto",
        "Adds the exact text in images to captions: auto (what is installed), apple_vision, rapidocr, none or a model.",
        min_length=1,
        max_length=200,
    )
    reader_languages: tuple[str, ...] = setting(
        (), "Languages for apple_vision in order of preference, e.g. [en-US, de-DE]. If empty, it detects them."
    )
    reader_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        60.0,
        "Longest time for one image, not counting waits for others. Then its block says that its text was not read.",
        "seconds",
    )
    reader_max_chars: int = setting(
        8000, "Longest text of one image. The rest is cut off.", "characters", ge=1, le=1_000_000
    )
    reader_max_tokens: int = setting(
        2048, "Longest text of one image when the reader is a model.", "tokens", ge=1, le=32_768
    )
    documents: Literal["auto", "text", "pages", "both"] = setting(
        "auto",
        "What is taken from a PDF. auto takes the text, and images of pages that have figures or no text.",
    )
    html: Literal["text", "source"] = setting(
        "text", "How a web page is read: its text as Markdown, which needs the extra office, or its HTML source."
    )
    max_document_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(32 * MIB, "Size of a document.", "bytes")
    max_document_pages: int = setting(100, "Pages of one PDF. A longer one is refused.", "pages", ge=1, le=10_000)
    max_page_px: int = setting(2000, "Longest side of the image of a page.", "pixels", ge=28, le=8192)
    document_max_chars: int = setting(
        100_000, "Text of one document. The rest is cut off, and its block says so.", "characters", ge=1, le=10_000_000
    )
    video: VideoConfig = setting(VideoConfig(), "Videos, which the extra video decodes. Their frames are images.")

    @property
    def reader_model(self) -> str | None:
        """The entry that reads the text in images, if a model does."""
        return None if self.reader in READER_KINDS else self.reader


class RemoteConfig(Section):
    """A captioner on another server, and how requests are made to it."""

    backend: Literal["vllm", "lmdeploy", "triton", "openai"] = setting(
        "openai",
        "Kind of server: vllm, lmdeploy, triton (also trtllm-serve), or openai for any other OpenAI-compatible one.",
    )
    base_url: str = Field(
        pattern=BASE_URL, max_length=2000, description="URL of its OpenAI API, e.g. http://127.0.0.1:8000/v1."
    )
    model: str = Field(min_length=1, max_length=500, description="The model's name in GET /v1/models of that server.")
    api_key_env: str | None = setting(
        None, "Environment variable that holds the server's API key.", pattern=ENV_NAME, max_length=200
    )
    ca_file: str | None = setting(
        None,
        "PEM file of the authority that signed its TLS certificate. If unset, the public authorities.",
        min_length=1,
    )
    connect_timeout_s: Annotated[float, Field(ge=0.1, le=600), SECONDS] = setting(
        5.0, "Longest wait for a connection.", "seconds"
    )
    read_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] | None = setting(
        None,
        "Longest silence while it works on a caption. If unset, only timeout_s of vision_proxy applies.",
        "seconds",
    )
    max_concurrent: int = setting(
        4,
        "Images that it is asked about at once. More wait; if it stays busy, the request gets a 503.",
        "images",
        ge=1,
        le=1024,
    )
    num_retries: int = setting(
        2, "Further tries for an image when the server is not listening or busy.", "tries", ge=0, le=10
    )
    stream: bool = setting(False, "Ask for captions as streams, for a gateway that closes silent connections.")
    extra_body: dict[str, JsonValue] = setting({}, "Fields that are added to each request to it, e.g. {top_k: 1}.")


class Capabilities(Section):
    """What a model does with the images of a request."""

    vision_mode: Annotated[
        VisionMode,
        BeforeValidator(read_vision_mode),
        WithJsonSchema({"enum": [*VisionMode, "none", "false", "off", False]}),
    ] = setting(
        VisionMode.DISABLED, "disabled refuses images, proxy has them captioned, native shows them to the model itself."
    )
    vision_proxy: VisionProxyConfig | None = setting(
        None, "The captioner, which vision_mode: proxy needs. Its limits of images and documents hold for native, too."
    )
    images_when_disabled: Literal["reject", "placeholder"] = setting(
        "reject",
        "With vision disabled, images of earlier turns and tool results: refuse, or replace by a placeholder.",
    )
