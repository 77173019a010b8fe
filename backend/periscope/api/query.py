"""Query parameters of our own routes: known ones alone, each once, within their bounds. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from periscope.api.wording import clip
from periscope.errors import InvalidRequest

if TYPE_CHECKING:
    from starlette.requests import Request


def query_of(request: Request, *known: str, none: str = "There are none.") -> dict[str, str]:
    """The query's fields. `none`: what is told where no field is known.

    Raises:
        InvalidRequest: a field is unknown or given twice.
    """
    fields = request.query_params.multi_items()
    for name, _ in fields:
        if name not in known:
            fix = f"Known are {' and '.join(known)}." if known else none
            raise InvalidRequest(f"`{clip(name)}` is no query parameter of this route. {fix}", param=clip(name))
    query = dict(fields)
    if len(query) < len(fields):
        raise InvalidRequest("A query parameter stands there twice. Name each once.")
    return query


def number_of(query: Mapping[str, str], name: str, *, default: int, most: int, least: int = 0) -> int:
    """The whole number of this name, from `least` to `most`.

    Raises:
        InvalidRequest: it is none, or beyond the bounds.
    """
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(most)) and least <= int(text) <= most):
        raise InvalidRequest(f"`{name}` is {clip(text)!r}; it should be a number from {least} to {most}.", param=name)
    return int(text)
