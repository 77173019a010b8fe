"""A program's values as JSON has them, so that they are decoded as a body of the server is. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from periscope.api.body import in_whole_characters
from periscope.errors import InvalidRequest


def plain(value: Any) -> Any:
    """A copy of dicts and lists: models of pydantic become dicts, what is iterated over a list, keys texts.

    Half a surrogate pair becomes U+FFFD, as in the body of a request.

    Raises:
        InvalidRequest: it is nested too deeply.
    """
    try:
        return in_whole_characters(_copied(value))
    except RecursionError:
        raise InvalidRequest("The arguments are nested too deeply.") from None


def _copied(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if isinstance(value, Mapping):
        return {str(key): _copied(each) for key, each in value.items()}
    if isinstance(value, (str, bytes, type)) or not isinstance(value, Iterable):
        return value
    return [_copied(each) for each in value]
