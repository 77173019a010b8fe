"""The settings of images and documents: what a model does with them, who describes them, and within which limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, JsonValue
from pydantic.json_schema import WithJsonSchema

from periscope.config.quantities import BYTES, SECONDS
from periscope.config.section import BASE_URL, ENV_NAME, GIB, HUB_ID, KIB, MIB, Section, setting
from periscope.core import VisionMode


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


class VisionProxyConfig(Section):
    """Who captions the images of a text model's requests, how, and within which limits."""

    model: str | None = setting(None, "Name or alias of the entry that captions. Either this or hf_id.")
    hf_id: str | None = setting(
        None,
        "Hugging Face repository that captions; adds an entry for it unless there is one.",
        pattern=HUB_ID,
        max_length=200,
    )
    prompt_template: str | None = setting(
        None,
        "What the captioner is asked; unset: the text first, word for word, then a description.",
        min_length=1,
        max_length=20_000,
    )
    max_tokens: int = setting(256, "Longest caption.", "tokens", ge=1, le=8192)
    timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        60.0, "For all captions of a request; loads and waits for other requests do not count.", "seconds"
    )
    on_error: Literal["marker", "error"] = setting(
        "marker",
        "Captioner broken: marker tells the model that the image could not be read; error answers 503. Busy is a 503.",
    )
    max_images: int = setting(
        8,
        "New captions made for one request, newest first; the rest get a marker and keep it. Known ones do not count.",
        "images",
        ge=1,
        le=256,
    )
    max_image_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(20 * MIB, "One image file.", "bytes")
    max_source_pixels: int = setting(
        50_000_000, "Read from the header, before decoding.", "pixels", ge=1, le=1_000_000_000
    )
    max_side_px: int = setting(
        1024, "Longest side that the captioner sees; larger is scaled down.", "pixels", ge=28, le=8192
    )
    use_question: bool = setting(False, "Show the captioner the text of the image's own message too.")
    reader: Literal["auto", "apple_vision", "rapidocr", "none"] = setting(
        "auto", "Reads text in images to the letter, beside the caption; auto: what is installed of the two."
    )
    reader_languages: tuple[str, ...] = setting(
        (), "In order of preference, such as [en-US, de-DE]; for apple_vision. Empty: it finds out."
    )
    reader_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] = setting(
        20.0, "For one image, waits for others not counted; then its block says that its text was not read.", "seconds"
    )
    reader_max_chars: int = setting(
        8000, "Longest text of one image; the rest is cut off.", "characters", ge=1, le=1_000_000
    )
    documents: Literal["auto", "text", "pages", "both"] = setting(
        "auto",
        "Of a PDF: text, pages as pictures, or both; auto: text, and as pictures pages without any or with figures.",
    )
    max_document_bytes: Annotated[int, Field(ge=KIB, le=GIB), BYTES] = setting(
        32 * MIB, "One PDF or text file.", "bytes"
    )
    max_document_pages: int = setting(100, "Of one PDF; more is refused.", "pages", ge=1, le=10_000)
    max_page_px: int = setting(2000, "Longest side of a page's picture.", "pixels", ge=28, le=8192)
    document_max_chars: int = setting(
        100_000, "Text of one document; the rest is cut off, and its block says so.", "characters", ge=1, le=10_000_000
    )


class RemoteConfig(Section):
    """A captioner that another server runs, and how that is asked."""

    backend: Literal["vllm", "lmdeploy", "triton", "openai"] = setting(
        "openai", "Which server it is: vllm, lmdeploy, triton (also trtllm-serve), or openai for any other like them."
    )
    base_url: str = Field(
        pattern=BASE_URL, max_length=2000, description="Its OpenAI API, e.g. http://127.0.0.1:8000/v1."
    )
    model: str = Field(min_length=1, max_length=500, description="The model, as GET /v1/models of the server lists it.")
    api_key_env: str | None = setting(
        None, "Environment variable that holds the server's API key.", pattern=ENV_NAME, max_length=200
    )
    ca_file: str | None = setting(
        None, "PEM file of the authority that vouches for its TLS certificate; unset: the usual ones.", min_length=1
    )
    connect_timeout_s: Annotated[float, Field(ge=0.1, le=600), SECONDS] = setting(
        5.0, "Longest wait for a connection.", "seconds"
    )
    read_timeout_s: Annotated[float, Field(ge=0.1, le=3600), SECONDS] | None = setting(
        None, "Longest silence while it works on a caption; unset: only timeout_s of the captions counts.", "seconds"
    )
    max_concurrent: int = setting(
        4, "Images it is asked about at once; more wait their turn, and busy is a 503.", "images", ge=1, le=1024
    )
    num_retries: int = setting(
        2, "Further tries of an image, where nobody listens or the server is busy.", "tries", ge=0, le=10
    )
    stream: bool = setting(False, "Ask for captions as streams, for a gateway that cuts off long silences.")
    extra_body: dict[str, JsonValue] = setting({}, "Fields added to each of its requests, e.g. {top_k: 1}.")


class Capabilities(Section):
    """What a model does with the images of a request."""

    vision_mode: Annotated[
        VisionMode,
        BeforeValidator(read_vision_mode),
        WithJsonSchema({"enum": [*VisionMode, "none", "false", "off", False]}),
    ] = setting(
        VisionMode.DISABLED, "disabled refuses images, proxy has them captioned, native shows them to the model."
    )
    vision_proxy: VisionProxyConfig | None = setting(None, "The captioner; vision_mode: proxy needs it.")
    images_when_disabled: Literal["reject", "placeholder"] = setting(
        "reject", "With vision disabled, images of earlier turns and tool results: refuse, or say one was here."
    )
