"""`GET /api/logs`: the newest lines of the server's log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from starlette.requests import Request
from starlette.responses import Response

from periscope.api.openapi import Query, documented
from periscope.api.openapi.places import own_shapes
from periscope.api.query import number_of, query_of
from periscope.api.replies import GET, JSONReply
from periscope.api.routing import APIRouter
from periscope.api.wording import clip
from periscope.errors import InvalidRequest
from periscope.log_tail import KEPT_LINES

if TYPE_CHECKING:
    from periscope.log_tail import LogTail

_DEFAULT_LINES: Final = 200
_LEVELS: Final = ("debug", "info", "warning", "error")
_MAX_ID: Final = 10**15
_QUERY: Final = (
    Query(
        "lines", {"type": "integer", "minimum": 0, "maximum": KEPT_LINES, "default": _DEFAULT_LINES}, "At most so many."
    ),
    Query("after", {"type": "integer", "minimum": 0, "maximum": _MAX_ID, "default": 0}, "Those behind this id."),
    Query("level", {"enum": [*_LEVELS], "default": "debug"}, "Those of this level or a graver one."),
)


def logs_router(log: LogTail) -> APIRouter:
    """The route, over the lines that are kept. They hold no secrets: `log`'s formatter sees to that."""
    router = APIRouter()

    @router.api_route(
        "/api/logs",
        methods=GET,
        **documented("Periscope", "The newest lines of the log.", own_shapes.LogLines, query=_QUERY),
    )
    async def list_lines(request: Request) -> Response:
        query = query_of(request, "lines", "after", "level")
        lines = log.newest(
            number_of(query, "lines", default=_DEFAULT_LINES, most=KEPT_LINES),
            after=number_of(query, "after", default=0, most=_MAX_ID),
            level=_level_of(query),
        )
        return JSONReply({"lines": [asdict(line) for line in lines]})

    return router


def _level_of(query: Mapping[str, str]) -> str:
    level = query.get("level", "debug")
    if level not in _LEVELS:
        known = ", ".join(_LEVELS)
        raise InvalidRequest(f"`level` is {clip(level)!r}; it should be one of {known}.", param="level")
    return level
