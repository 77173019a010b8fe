"""`POST /tokenize` and `/detokenize`, in vLLM's shapes (`prompt`, `messages`) and llama.cpp's (`content`).

Source: vLLM's `entrypoints/serve/tokenize/protocol.py`, llama.cpp's `tools/server/README.md`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.disconnect import while_connected
from periscope.api.errors import UnsupportedParameter
from periscope.api.json_reading import read_json
from periscope.api.openai.chat import decode
from periscope.api.openapi import documented
from periscope.api.openapi.places import shapes
from periscope.api.record import record_of
from periscope.api.replies import JSONReply
from periscope.api.routing import APIRouter
from periscope.api.validation import Wire, validate
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.backend import ChatBackend
    from periscope.api.settings import ApiSettings
    from periscope.core import GenerationRequest, JSONObject, TokenizedText, TokenText

#: About a second of tokenising, during which no other prompt of the model is tokenised.
MAX_CHARS: Final = 500_000
_ONE_SOURCE: Final = "Send one of `prompt` (a text), `messages` (a chat) and `content` (a text; llama.cpp's shape)."


class TokenizeWire(Wire):
    """The body of POST /tokenize, apart from the fields of a chat.

    `return_token_strs` and `add_special_tokens` are vLLM's; `with_pieces`, `add_special` and `parse_special` are
    llama.cpp's, and go with `content`.
    """

    model: str | None = None
    prompt: str | None = None
    content: str | None = None
    messages: Any = None
    add_special_tokens: bool | None = None
    return_token_strs: bool | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeWire(Wire):
    """The body of POST /detokenize, the same with vLLM and llama.cpp."""

    model: str | None = None
    tokens: list[int]


@dataclass(frozen=True, slots=True)
class TokenizeCall:
    """A decoded request, and the form of its answer.

    Attributes:
        source: a plain text, or a chat.
        is_content: it came as llama.cpp's `content`.
        has_texts: the answer tells each token's text, too.
    """

    model: str
    source: str | GenerationRequest
    adds_special_tokens: bool
    is_content: bool
    has_texts: bool


def tokenizing_router(backend: ChatBackend, settings: ApiSettings) -> APIRouter:
    """Texts and chats to tokens, and tokens to text."""
    router = APIRouter()

    @router.post(
        "/tokenize",
        **documented(
            "Tokens",
            "The tokens of a text or of a chat, as the model reads them.",
            shapes.Tokenized,
            shapes.LlamaTokenized,
            body=TokenizeWire,
            example={"prompt": "Hello!"},
        ),
    )
    async def tokenize(request: Request) -> Response:
        record = record_of(request.scope)
        decode_call = partial(decode_tokenize, request_id=record.id_as("tokenize-"))
        call = await read_json(request, settings.max_text_bytes, decode_call)
        record.model = call.model
        tokenized = await while_connected(_tokenized(call, backend), request.receive)
        return JSONReply(encode_tokens(tokenized, call))

    @router.post(
        "/detokenize",
        **documented(
            "Tokens", "The text of tokens.", shapes.Detokenized, body=DetokenizeWire, example={"tokens": [1, 2]}
        ),
    )
    async def detokenize(request: Request) -> Response:
        record = record_of(request.scope)
        wire = await read_json(request, settings.max_text_bytes, partial(validate, DetokenizeWire))
        record.model = wire.model or ""
        text = await while_connected(backend.detokenize(wire.model or "", wire.tokens), request.receive)
        return JSONReply({"prompt": text, "content": text})

    return router


async def _tokenized(call: TokenizeCall, backend: ChatBackend) -> TokenizedText:
    if isinstance(call.source, str):
        return await backend.tokenize(call.model, call.source, adds_special_tokens=call.adds_special_tokens)
    return await backend.tokenize_chat(call.source)


def decode_tokenize(body: Any, request_id: str) -> TokenizeCall:
    """Pure: a parsed body of POST /tokenize.

    Raises:
        InvalidRequest: names the field, what was expected and what came.
    """
    wire = validate(TokenizeWire, body)
    sources = {name: value for name in ("prompt", "messages", "content") if (value := getattr(wire, name)) is not None}
    if len(sources) != 1:
        raise InvalidRequest(
            f"{_ONE_SOURCE} Got {' and '.join(sources) or 'none'}.", param=next(iter(sources), "prompt")
        )
    if wire.parse_special is False:
        raise UnsupportedParameter(
            "`parse_special` must be true: special tokens in a text are always read as such.", param="parse_special"
        )
    ((name, source),) = sources.items()
    is_content = name == "content"
    return TokenizeCall(
        model=wire.model or "",
        source=_chat(wire, body, request_id) if name == "messages" else _bounded(source, name),
        adds_special_tokens=bool(wire.add_special) if is_content else wire.add_special_tokens is not False,
        is_content=is_content,
        has_texts=bool(wire.with_pieces if is_content else wire.return_token_strs),
    )


def _chat(wire: TokenizeWire, body: Any, request_id: str) -> GenerationRequest:
    if wire.add_special_tokens:
        raise UnsupportedParameter(
            "`add_special_tokens` goes with `prompt`: a chat has the special tokens that its template writes.",
            param="add_special_tokens",
        )
    return decode(body, request_id).request


def _bounded(text: str, param: str) -> str:
    if len(text) > MAX_CHARS:
        raise InvalidRequest(
            f"`{param}` has {len(text)} characters; at most {MAX_CHARS} are taken. Send it in pieces.", param=param
        )
    return text


def encode_tokens(tokenized: TokenizedText, call: TokenizeCall) -> JSONObject:
    """Pure: the answer, in the shape that belongs to the request's."""
    tokens = tokenized.tokens
    token_ids = [token.token_id for token in tokens]
    if call.is_content:
        return {"tokens": [_piece(token) for token in tokens] if call.has_texts else token_ids}
    return {
        "count": len(tokens),
        "max_model_len": tokenized.context_length,
        "tokens": token_ids,
        "token_strs": [token.text for token in tokens] if call.has_texts else None,
    }


def _piece(token: TokenText) -> JSONObject:
    """A token as llama.cpp tells it: its bytes where they are no whole characters."""
    try:
        return {"id": token.token_id, "piece": token.utf8.decode()}
    except UnicodeDecodeError:
        return {"id": token.token_id, "piece": list(token.utf8)}
