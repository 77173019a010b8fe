"""Corrects the spellings of paths that come from a base URL with a piece too many or too few.

Clients join a base URL and a path, and people type the base URL with or without `/v1` and with or without a slash at
the end. Only spellings that can mean a single path are corrected. The error for any other path names the nearest one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

#: The paths that clients and people ask for, longer ones first.
PATHS = (
    *(
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/messages/count_tokens",
        "/v1/messages",
        "/v1/models/select",
        "/v1/models",
    ),
    "/v1/embeddings",
    *("/v1/responses/input_tokens", "/v1/responses"),
    *("/api/server/shutdown", "/api/server/reload", "/api/downloads"),
    *("/api/models/unload", "/api/models/load", "/api/models/pin"),
    *("/api/captions", "/api/requests", "/api/status", "/api/events", "/api/logs"),
    *("/detokenize", "/tokenize", "/mcp"),
    *("/api/v0/models", "/api/v1/models", "/props"),
    *("/health", "/readyz", "/livez", "/metrics", "/openapi.json"),
)
_CHAT, _MODELS = "POST /v1/chat/completions", "GET /v1/models"
#: Paths of APIs that are not served, with the name of the API and the call that does the same work here, if one does.
_OTHER_APIS: Mapping[str, tuple[str, str | None]] = {
    **{f"/api/{name}": ("Ollama's API", _MODELS) for name in ("tags", "show", "ps", "version")},
    **{f"/api/{name}": ("Ollama's API", _CHAT) for name in ("chat", "generate")},
    **{f"/api/{name}": ("Ollama's API", None) for name in ("embed", "embeddings", "blobs")},
    **{f"/api/{name}": ("Ollama's API", None) for name in ("pull", "push", "create", "copy", "delete")},
}
_CHAT_DOES_IT = f"{_CHAT} does the same work: it takes the whole conversation each time"
#: Paths of OpenAI's and Anthropic's APIs that are not served -> the API, and what is served instead.
_ABSENT: Mapping[str, tuple[str, str]] = {
    "/v1/moderations": (
        "OpenAI's Moderations API",
        f"{_CHAT} with a model of your choice can judge texts and pictures",
    ),
    "/v1/images": ("OpenAI's Images API", f"Pictures are read, by {_CHAT}, and not made"),
    "/v1/videos": ("OpenAI's Videos API", f"Videos are read, by {_CHAT} in `video_url` parts, and not made"),
    "/v1/audio": ("OpenAI's Audio API", "Sound is neither read nor made"),
    "/v1/realtime": ("OpenAI's Realtime API", f"{_CHAT} with `stream: true` answers token by token"),
    "/v1/files": ("OpenAI's Files API", f"No files are stored: send each in a `file` part of a message to {_CHAT}"),
    "/v1/uploads": ("OpenAI's Uploads API", f"No files are stored: send each in a `file` part of a message to {_CHAT}"),
    "/v1/batches": ("OpenAI's Batch API", f"Send the requests to {_CHAT}: those that run together share the work"),
    "/v1/messages/batches": (
        "Anthropic's Message Batches API",
        "Send the requests to POST /v1/messages: those that run together share the work",
    ),
    "/v1/complete": ("Anthropic's old Completions API", "Use POST /v1/messages"),
    "/v1/responses/compact": (
        "OpenAI's compaction of conversations",
        "`truncation: auto` of POST /v1/responses drops the oldest turns of one that is too long",
    ),
    "/v1/assistants": ("OpenAI's Assistants API", _CHAT_DOES_IT),
    "/v1/threads": ("OpenAI's Assistants API", _CHAT_DOES_IT),
    "/v1/conversations": ("OpenAI's Conversations API", _CHAT_DOES_IT),
    "/v1/vector_stores": (
        "OpenAI's Vector Stores API",
        f"Nothing is stored: send documents in `file` parts to {_CHAT}",
    ),
    "/v1/containers": ("OpenAI's Containers API", "The server runs no code"),
    "/v1/fine_tuning": ("OpenAI's Fine-tuning API", "Models are not trained here; models.yaml says which are served"),
    "/v1/evals": ("OpenAI's Evals API", f"Send the requests of an evaluation to {_CHAT}"),
    "/v1/organization": ("OpenAI's Administration API", "There are no accounts; models.yaml has the server's API key"),
    "/v1/rerank": ("The rerank API", f"{_CHAT} with `guided_choice` can grade documents"),
    "/rerank": ("The rerank API", f"{_CHAT} with `guided_choice` can grade documents"),
    "/sse": ("MCP's transport of 2024", "Set the client to streamable HTTP at /mcp"),
    "/v1/score": ("vLLM's score API", f"{_CHAT} with `guided_choice` can grade documents"),
}
_SERVED = frozenset(PATHS)
_OTHER_PATH = re.compile(r"(/(?:api|v1)/[a-z]+)(?:/|$)")
_SLASHES = re.compile(r"/{2,}")
_VERSIONS = re.compile(r"^(?:/v1)+(?=/v1(?:/|$))")
#: These stand beside `/v1`, and not under it.
_BESIDE_VERSION = re.compile(r"^/v1(?=/(?:(?:de)?tokenize|mcp)$)")
#: LM Studio's own API has OpenAI's calls beside its list of models.
_OF_LM_STUDIO = re.compile(r"^/api/v0(?=/(?:chat/completions|completions|embeddings)$)")
_WITHOUT_VERSION = re.compile(r"/(?:models|messages|responses|chat/completions|completions|embeddings)(?=/|$)")


def intended_path(path: str) -> str:
    """Pure: `/v1/models` for `/v1//models/`, `/v1/v1/models` and `/models`; correct paths stay as they are."""
    if path in _SERVED:
        return path
    path = _VERSIONS.sub("", _SLASHES.sub("/", path).rstrip("/")) or "/"
    path = _OF_LM_STUDIO.sub("/v1", _BESIDE_VERSION.sub("", path))
    return f"/v1{path}" if _WITHOUT_VERSION.match(path) else path


def is_absent(path: str) -> bool:
    """Pure: whether this is of an API that is not served, though a path here may have the same shape."""
    return _absent_prefix(path) is not None


def _absent_prefix(path: str) -> str | None:
    return next((prefix for prefix in _ABSENT if f"{path}/".startswith(f"{prefix}/")), None)


def way_on(path: str) -> str:
    """Pure: advice for a client that asks for this path, which does not exist."""
    if (prefix := _absent_prefix(path)) is not None:
        api, instead = _ABSENT[prefix]
        return f"{api} is not served. {instead}."
    found = _OTHER_PATH.match(path)
    if found is not None and found[1] in _OTHER_APIS:
        api, call = _OTHER_APIS[found[1]]
        fix = f"Use {call}" if call else f"What is served is {_CHAT} and {_MODELS}"
        return (
            f"{api} is not served. {fix}, or set the client to an OpenAI-compatible server with a base URL under /v1."
        )
    near = nearest_path(path)
    return f"Did you mean {near}?" if near else f"{_MODELS} is a good start."


def nearest_path(path: str) -> str | None:
    """Pure: the path that was probably meant, if one ends alike or differs by a few letters."""
    alike = (known for known in PATHS if path.endswith(known.removeprefix("/v1")))
    return next(alike, None) or next(iter(get_close_matches(path, PATHS, n=1)), None)


class IntendedPaths:
    """ASGI layer: passes requests on under the path that they mean. The access log shows the path as it came."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = intended_path(scope["path"])
            if path != scope["path"]:
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)
