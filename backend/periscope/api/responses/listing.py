"""Pages of input items, and the query parameters of stored responses. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from periscope.api.errors import UnsupportedParameter
from periscope.api.openapi import Query
from periscope.api.query import number_of
from periscope.api.wording import clip, kind_of
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from starlette.requests import Request

    from periscope.core import JSONObject

_MAX_PAGE: Final = 100
_DEFAULT_PAGE: Final = 20
#: Of `page_of`, for the OpenAPI document.
PAGE_QUERY: Final = (
    Query(
        "limit",
        {"type": "integer", "minimum": 1, "maximum": _MAX_PAGE, "default": _DEFAULT_PAGE},
        "At most so many items.",
    ),
    Query("order", {"enum": ["asc", "desc"], "default": "desc"}, "The oldest first, or the newest."),
    Query("after", {"type": "string"}, "Those behind the item of this id."),
)
#: They change nothing here: what may be included is always told, and streams are not padded.
_WITHOUT_EFFECT: Final = frozenset({"include", "include[]", "include_obfuscation"})


@dataclass(frozen=True, slots=True)
class Page:
    """Which items are asked for.

    Attributes:
        after: id of the last item of the page before.
    """

    limit: int = _DEFAULT_PAGE
    is_ascending: bool = False
    after: str | None = None


def page_of(request: Request) -> Page:
    """The page in the query.

    Raises:
        InvalidRequest: a parameter is unknown, or its value is none that is taken.
    """
    query = _query(request, "limit", "order", "after")
    order = query.get("order", "desc")
    if order not in ("asc", "desc"):
        raise InvalidRequest(f"`order` must be asc or desc, got {kind_of(order)}.", param="order")
    limit = number_of(query, "limit", default=_DEFAULT_PAGE, least=1, most=_MAX_PAGE)
    return Page(limit, order == "asc", query.get("after"))


def refuse_streaming(request: Request) -> None:
    """Check that a stored response is asked for as a whole: its events are not kept.

    Raises:
        UnsupportedParameter: it is to be streamed.
        InvalidRequest: a parameter is unknown.
    """
    query = _query(request, "stream", "starting_after")
    if query.get("stream", "false") != "false" or "starting_after" in query:
        raise UnsupportedParameter(
            "`stream` is not supported here: the events of a response are not kept. Leave it out to get the whole "
            "response.",
            param="stream",
        )


def listed(items: Sequence[JSONObject], page: Page) -> JSONObject:
    """One page of the items, which are in order.

    Raises:
        InvalidRequest: there is no item after which the page could begin.
    """
    ordered = list(items) if page.is_ascending else list(reversed(items))
    start = 0
    if page.after is not None:
        ids = [item["id"] for item in ordered]
        if page.after not in ids:
            raise InvalidRequest(f"`after` is {clip(page.after)}, which no item of this list has as id.", param="after")
        start = ids.index(page.after) + 1
    shown = ordered[start : start + page.limit]
    return {
        "object": "list",
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": start + page.limit < len(ordered),
    }


def _query(request: Request, *known: str) -> dict[str, str]:
    fields = [(name, value) for name, value in request.query_params.multi_items() if name not in _WITHOUT_EFFECT]
    for name, _ in fields:
        if name not in known:
            raise InvalidRequest(
                f"`{clip(name)}` is no query parameter of this route. Known are {', '.join(known)}.", param=clip(name)
            )
    return dict(fields)
