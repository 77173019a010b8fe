"""Names of tools in a request of any dialect. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from periscope.api.wording import clip, kind_of
from periscope.errors import InvalidRequest


def refuse_repeated_names(names: Iterable[tuple[str, str]]) -> None:
    """Check that no two tools have the same name, so that a call means one of them.

    Args:
        names: (place in the request, name) of each tool.

    Raises:
        InvalidRequest: names both places.
    """
    places: dict[str, str] = {}
    for place, name in names:
        first = places.setdefault(name, place)
        if first != place:
            raise InvalidRequest(
                f"`{place}` is {kind_of(name)}, as `{first}` is already. Give each tool a name of its own.",
                param=place,
            )


def known_name(name: str, known: Sequence[str], place: str) -> str:
    """The name of the tool that must be called.

    Raises:
        InvalidRequest: no tool of this request has it.
    """
    if name not in known:
        raise InvalidRequest(
            f"`{place}` must be one of {clip(', '.join(known), 400)}, got {kind_of(name)}.", param=place
        )
    return name
