"""`GET` and `DELETE /api/captions`: list the captions in the cache, and drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from periscope.api.replies import GET, JSONReply, json_number
from periscope.api.wording import clip
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from periscope.api.backend import ControlBackend
    from periscope.captions.cache import CacheStats
    from periscope.captions.kept import KeptCaption
    from periscope.core import JSONObject

_DEFAULT_LIMIT: Final = 20
_MAX_LIMIT: Final = 1000


def kept_captions_router(control: ControlBackend) -> APIRouter:
    """The routes about cached captions. `POST` on the same path makes captions."""
    router = APIRouter()

    @router.api_route("/api/captions", methods=GET)
    async def list_captions(request: Request) -> Response:
        query = _query(request, ("limit", "key"))
        stats, captions = await control.captions(_limit(query.get("limit")), query.get("key", ""))
        return JSONReply({"stats": encode_stats(stats), "captions": [encode_kept(kept) for kept in captions]})

    @router.delete("/api/captions")
    async def flush_captions(request: Request) -> Response:
        _query(request, ())
        flushed = await control.flush_captions()
        return JSONReply({"flushed": flushed.num_entries, "is_written": flushed.is_written})

    return router


def encode_stats(stats: CacheStats) -> JSONObject:
    """Pure: the state of the cache; `file` is null when captions are kept in memory only."""
    file = None
    if stats.path is not None:
        file = {"path": str(stats.path), "state": stats.state, "num_unwritten": stats.num_unwritten}
    return {
        "num_entries": stats.num_entries,
        "num_bytes": stats.num_bytes,
        "max_bytes": stats.max_bytes,
        "num_hits": stats.num_hits,
        "num_misses": stats.num_misses,
        "file": file,
    }


def encode_kept(kept: KeptCaption) -> JSONObject:
    """Pure: one caption; times are seconds since 1970."""
    return {
        "key": kept.key,
        "text": kept.caption.text,
        "num_tokens": kept.caption.num_tokens,
        "elapsed_ms": kept.caption.elapsed_ms,
        "created_at": json_number(kept.created_at),
        "used_at": json_number(kept.used_at),
    }


def _query(request: Request, known: tuple[str, ...]) -> dict[str, str]:
    """The query's fields. An unknown one is refused, because it may be meant to limit what is dropped.

    Raises:
        InvalidRequest: a field is unknown or given twice.
    """
    fields = request.query_params.multi_items()
    for name, _ in fields:
        if name not in known:
            fix = f"Known are {' and '.join(known)}." if known else "There are none: all captions are flushed."
            raise InvalidRequest(f"`{clip(name)}` is no query parameter of this route. {fix}", param=clip(name))
    query = dict(fields)
    if len(query) < len(fields):
        raise InvalidRequest("A query parameter stands there twice. Name each once.")
    return query


def _limit(text: str | None) -> int:
    """The limit. Raises InvalidRequest unless it is a number within the bounds."""
    if text is None:
        return _DEFAULT_LIMIT
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) <= _MAX_LIMIT):
        raise InvalidRequest(f"`limit` is {clip(text)!r}; it should be a number from 0 to {_MAX_LIMIT}.", param="limit")
    return int(text)
