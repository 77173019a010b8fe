"""`GET` and `DELETE /api/captions`: list the captions in the cache, and drop them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.openapi import Query, documented
from periscope.api.openapi.places import own_shapes
from periscope.api.query import number_of, query_of
from periscope.api.replies import GET, JSONReply, json_number
from periscope.api.routing import APIRouter

if TYPE_CHECKING:
    from periscope.api.backend import ControlBackend
    from periscope.captions.cache import CacheStats
    from periscope.captions.kept import KeptCaption
    from periscope.core import JSONObject

_DEFAULT_LIMIT: Final = 20
_MAX_LIMIT: Final = 1000
_QUERY: Final = (
    Query(
        "limit", {"type": "integer", "minimum": 0, "maximum": _MAX_LIMIT, "default": _DEFAULT_LIMIT}, "At most so many."
    ),
    Query("key", {"type": "string"}, "Those whose key, or its digest, begins with this."),
)


def kept_captions_router(control: ControlBackend) -> APIRouter:
    """The routes about cached captions. `POST` on the same path makes captions."""
    router = APIRouter()

    @router.api_route(
        "/api/captions",
        methods=GET,
        **documented(
            "Periscope", "The captions that are kept, the last used first.", own_shapes.CaptionList, query=_QUERY
        ),
    )
    async def list_captions(request: Request) -> Response:
        query = query_of(request, "limit", "key")
        limit = number_of(query, "limit", default=_DEFAULT_LIMIT, most=_MAX_LIMIT)
        stats, captions = await control.captions(limit, query.get("key", ""))
        return JSONReply({"stats": encode_stats(stats), "captions": [encode_kept(kept) for kept in captions]})

    @router.delete("/api/captions", **documented("Periscope", "Drops all captions.", own_shapes.FlushedCaptions))
    async def flush_captions(request: Request) -> Response:
        query_of(request, none="There are none: all captions are flushed.")
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
