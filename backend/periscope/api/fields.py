"""What becomes of each field of a request: one table for each dialect, by which its bodies are decoded. Pure.

A field that no table has is unknown: it is accepted, and named in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, TypeAlias

from periscope.api.errors import UnsupportedParameter
from periscope.api.wording import clip

logger = logging.getLogger(__name__)

_MAX_NAMED: Final = 32


class Handling(StrEnum):
    """What becomes of a field.

    Attributes:
        USED: it is read from the body's wire model.
        IGNORED: accepted; the answer would be the same with it.
        NOTED: accepted without effect, and named in the log: somebody may miss it.
        REFUSED: without it the answer would not be what was asked for.
    """

    USED = "used"
    IGNORED = "accepted, changes nothing"
    NOTED = "accepted without effect, named in the log"
    REFUSED = "refused (400)"


@dataclass(frozen=True, slots=True)
class Field:
    """One row of a table.

    Attributes:
        why: for people who read the table; Markdown without `|`.
        neutral: values, besides null, that ask for nothing, and so are neither refused nor noted.
        fix: what to do instead of sending it.
    """

    handling: Handling
    why: str = ""
    neutral: tuple[Any, ...] = ()
    fix: str = "leave it out"


#: Field -> what becomes of it. A field of an object that is itself a field stands under its path (`a.b`).
FieldTable: TypeAlias = Mapping[str, Field]


def used(why: str = "") -> Field:
    """A field that is read."""
    return Field(Handling.USED, why)


def ignored(why: str) -> Field:
    """A field that changes nothing."""
    return Field(Handling.IGNORED, why)


def noted(why: str, *neutral: Any) -> Field:
    """A field that is accepted although it has no effect."""
    return Field(Handling.NOTED, why, neutral)


def refused(why: str, *neutral: Any, fix: str = "leave it out") -> Field:
    """A field that is refused, unless its value is null or one of those that ask for nothing."""
    return Field(Handling.REFUSED, why, neutral, fix)


def refused_beyond_chats(form: str) -> dict[str, Field]:
    """What OpenAI's chats and completions take of vLLM's and llama.cpp's fields, and the other dialects do not.

    Args:
        form: the field of this dialect in which a schema for the answer stands.
    """
    schema = f"send a schema as `{form}`, or the request to /v1/chat/completions"
    chats = "send the request to /v1/chat/completions"
    return {
        **dict.fromkeys(("guided_json", "guided_choice"), refused("vLLM's", [], fix=schema)),
        **dict.fromkeys(("guided_regex", "guided_grammar"), refused("vLLM's", "", fix=schema)),
        "structured_outputs": refused("vLLM's", {}, fix=schema),
        **dict.fromkeys(("grammar", "json_schema"), refused("llama.cpp's", "", fix=schema)),
        "min_tokens": refused("vLLM's", 0, fix=chats),
        "ignore_eos": refused("vLLM's", False, fix=chats),
        "stop_token_ids": refused("vLLM's", [], fix=chats),
        "continue_final_message": refused("vLLM's", False, fix=chats),
    }


def refuse_fields(extra: Mapping[str, Any] | None, table: FieldTable, parent: str = "", place: str = "") -> None:
    """Refuse fields that are not supported.

    Args:
        extra: what the wire model does not have.
        parent: the path of the object that has them, with a dot at its end.
        place: the same as it stands in the request, where that object is one of several (`tools[0].`).

    Raises:
        UnsupportedParameter: names the first such field.
    """
    for name, value in (extra or {}).items():
        field = table.get(f"{parent}{name}")
        if field is not None and field.handling is Handling.REFUSED and not _asks_for_nothing(value, field):
            param = f"{place or parent}{name}"
            raise UnsupportedParameter(f"`{param}` is not supported; {field.fix}.", param=param)


def noted_fields(
    extra: Mapping[str, Any] | None, table: FieldTable, parent: str = "", place: str = ""
) -> Iterator[str]:
    """The paths of fields that are accepted and have no effect, although somebody may miss it; and of unknown ones."""
    for name, value in (extra or {}).items():
        field = table.get(f"{parent}{name}", _UNKNOWN)
        if field.handling is Handling.NOTED and not _asks_for_nothing(value, field):
            yield f"{place or parent}{clip(name)}"


def log_unused(places: Sequence[str], request_id: str) -> None:
    """One line with what a request asks for in vain."""
    if places:
        more = f" and {len(places) - _MAX_NAMED} more" if len(places) > _MAX_NAMED else ""
        told = ", ".join(places[:_MAX_NAMED])
        logger.info("accepted and not used: %s%s", told, more, extra={"request_id": request_id})


_UNKNOWN: Final = noted("unknown")


def _asks_for_nothing(value: Any, field: Field) -> bool:
    return value is None or value in field.neutral
