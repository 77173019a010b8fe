"""`POST /v1/embeddings`: decode, call, encode.

Source: OpenAI's API reference; `truncate_prompt_tokens` is vLLM's, `prompt_name` is text-embeddings-inference's.
"""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from pybase64 import b64encode
from starlette.requests import Request
from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.fields import log_unused, noted_fields, refuse_fields
from periscope.api.json_reading import read_json
from periscope.api.model_names import name_of
from periscope.api.openai.fields import EMBEDDING_FIELDS
from periscope.api.openapi import documented
from periscope.api.openapi.places import shapes
from periscope.api.record import record_of
from periscope.api.replies import dump_json
from periscope.api.routing import APIRouter
from periscope.api.validation import Whole, Wire, validate
from periscope.api.wording import kind_of
from periscope.core import MAX_INPUTS, EmbeddingInput, EmbeddingRequest, ModelKind
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.backend import EmbeddingBackend, ModelBackend
    from periscope.api.settings import ApiSettings
    from periscope.core import Embeddings

_INPUT: Final = "a text, a list of texts, a list of token ids, or a list of lists of token ids"


class EmbeddingWire(Wire):
    """The body of POST /v1/embeddings."""

    model: str | None = None
    input: Any = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Whole | None = None
    truncate_prompt_tokens: Whole | None = None
    prompt_name: str | None = None


@dataclass(frozen=True, slots=True)
class EmbeddingCall:
    """A decoded request, and the form of its answer.

    Attributes:
        unused: fields that have no effect.
    """

    request: EmbeddingRequest
    is_base64: bool
    unused: tuple[str, ...]


def embedding_router(embeddings: EmbeddingBackend, models: ModelBackend, settings: ApiSettings) -> APIRouter:
    """The route of `/v1/embeddings`, which turns texts into vectors."""
    router = APIRouter(prefix="/v1")

    @router.post(
        "/embeddings",
        **documented(
            "OpenAI",
            "A vector for each text.",
            shapes.EmbeddingList,
            body=EmbeddingWire,
            example={"input": ["Hello!", "Goodbye!"]},
        ),
    )
    async def create_embeddings(request: Request) -> Response:
        record = record_of(request.scope)
        decode_call = partial(decode_embedding, request_id=record.id_as("embd-"))
        call = await read_json(request, settings.max_text_bytes, decode_call)
        record.model = call.request.model
        log_unused(call.unused, record.id)
        made = await while_connected(embeddings.embed(call.request), request.receive)
        default = next((card.name for card in models.models() if card.kind is ModelKind.EMBEDDING), "")
        encode = partial(encode_embeddings, made, name_of(call.request.model, default), is_base64=call.is_base64)
        return Response(await asyncio.to_thread(encode), media_type="application/json")

    return router


def decode_embedding(body: Any, request_id: str) -> EmbeddingCall:
    """Pure: a parsed body of POST /v1/embeddings.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    wire = validate(EmbeddingWire, body)
    refuse_fields(wire.model_extra, EMBEDDING_FIELDS)
    request = EmbeddingRequest(
        id=request_id,
        model=wire.model or "",
        inputs=_inputs(wire.input),
        dimensions=wire.dimensions,
        prompt_name=wire.prompt_name,
        truncate_tokens=wire.truncate_prompt_tokens,
    )
    unused = tuple(noted_fields(wire.model_extra, EMBEDDING_FIELDS))
    return EmbeddingCall(request, is_base64=wire.encoding_format == "base64", unused=unused)


def _inputs(given: Any) -> tuple[EmbeddingInput, ...]:
    """The inputs of any of the four shapes."""
    if isinstance(given, str) or (isinstance(given, list) and given and _is_id(given[0])):
        return (_input(given, "input"),)
    if not isinstance(given, list):
        raise InvalidRequest(f"`input` must be {_INPUT}, got {kind_of(given)}.", param="input")
    if not given:
        raise InvalidRequest("`input` is an empty list. Send a text, or a list of texts.", param="input")
    if len(given) > MAX_INPUTS:
        raise InvalidRequest(
            f"`input` has {len(given)} texts; at most {MAX_INPUTS} are taken at once. Send them in several requests.",
            param="input",
        )
    return tuple(_input(each, f"input[{index}]") for index, each in enumerate(given))


def _input(given: Any, param: str) -> EmbeddingInput:
    if isinstance(given, str) or (isinstance(given, list) and all(map(_is_id, given))):
        if not given:
            raise InvalidRequest(f"`{param}` is empty. Leave it out, or send a text.", param=param)
        return given if isinstance(given, str) else tuple(given)
    found = next((each for each in given if not _is_id(each)), None) if isinstance(given, list) else given
    raise InvalidRequest(f"`{param}` must be a text or a list of token ids, got {kind_of(found)}.", param=param)


def _is_id(value: Any) -> bool:
    return type(value) is int


def encode_embeddings(made: Embeddings, model: str, *, is_base64: bool) -> bytes:
    """Pure: the answer's body. It is made vector by vector, so that other threads get their turns in between."""
    rows = [
        dump_json({"object": "embedding", "index": index, "embedding": _vector(vector, is_base64=is_base64)})
        for index, vector in enumerate(made.vectors)
    ]
    usage = {"prompt_tokens": made.num_tokens, "total_tokens": made.num_tokens}
    rest = dump_json({"model": model, "usage": usage})
    return b'{"object":"list","data":[' + b",".join(rows) + b"]," + rest[1:]


def _vector(vector: bytes, *, is_base64: bool) -> str | Sequence[float]:
    return b64encode(vector).decode("ascii") if is_base64 else array("f", vector).tolist()
