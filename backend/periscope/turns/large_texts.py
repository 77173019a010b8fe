"""Takes long texts out of JSON and puts them back: a picture that comes in every turn is kept once. Pure."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from periscope.core import JSONObject

#: A shorter text costs more to keep apart than to repeat.
MIN_CHARS: Final = 4096

Container: TypeAlias = dict[str, Any] | list[Any]


@dataclass(frozen=True, slots=True)
class TakenOut:
    """One long text: where it stood, as keys and indexes from the outside in, and what it is known by."""

    path: tuple[str | int, ...]
    digest: bytes
    text: str


def without_large_texts(item: JSONObject) -> tuple[JSONObject, list[TakenOut]]:
    """A copy of the item with null for each long text, and these texts. The item itself stays as it is."""
    taken: list[TakenOut] = []
    return _copied(item, (), taken), taken


def put_back(item: JSONObject, texts: Mapping[tuple[str | int, ...], str]) -> None:
    """Put texts into their places, in place.

    Raises:
        LookupError, TypeError: there is no such place: the item is not the one that they were taken from.
    """
    for path, text in texts.items():
        holder: Any = item
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = text


def _copied(value: Any, path: tuple[str | int, ...], taken: list[TakenOut]) -> Any:
    """JSON is at most as deep as `MAX_JSON_DEPTH`."""
    if isinstance(value, (dict, list)):
        copied = ((key, _copied(each, (*path, key), taken)) for key, each in _entries(value))
        return dict(copied) if isinstance(value, dict) else [each for _, each in copied]
    if not isinstance(value, str) or len(value) < MIN_CHARS:
        return value
    digest = hashlib.sha256(value.encode(errors="surrogatepass")).digest()
    taken.append(TakenOut(path, digest, value))
    return None


def _entries(value: Container) -> Iterator[tuple[str | int, Any]]:
    yield from value.items() if isinstance(value, dict) else enumerate(value)
