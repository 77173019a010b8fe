"""What a route says of itself in the OpenAPI document, as keyword arguments for its decorator. Pure, and cheap.

Types are only named here: the document, which is made when somebody asks for it, looks them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

#: Keys of an operation that the document resolves: the types of its body, its answers, and more.
BODY, EXAMPLE, REPLIES, EVENTS = "x-body", "x-example", "x-replies", "x-events"
STATUS, QUERY, ACCEPTED = "x-status", "x-query", "x-accepted"


@dataclass(frozen=True, slots=True)
class Query:
    """One query parameter of a route that reads its query itself. `schema` is its JSON Schema."""

    name: str
    schema: dict[str, Any]
    description: str


class RouteArguments(TypedDict):
    """What goes to the route's decorator."""

    summary: str
    tags: list[str]
    openapi_extra: dict[str, Any]


def documented(
    tag: str,
    summary: str,
    reply: Any = None,
    *others: Any,
    body: type | str | None = None,
    example: dict[str, Any] | None = None,
    events: str | None = None,
    status: int | None = 200,
    accepted: str | None = None,
    query: tuple[Query, ...] = (),
) -> RouteArguments:
    """The documentation of a route, for its decorator: `@router.post(path, **documented(...))`.

    Args:
        tag: the API that it belongs to.
        summary: what it does.
        reply: the type of its JSON answer, such as a TypedDict of `shapes.py`, or a media type, such as `text/plain`;
            None = any object.
        others: further types of its answer.
        body: the pydantic model that decodes its body, or its place; None = it takes none, or an empty object.
        example: of such a body.
        events: what the events of its stream are, if it may answer with one.
        status: of its answer; None = it answers with errors alone.
        accepted: what is answered with a 202 and no body, if anything is.
    """
    replies = [] if reply is None else [each if isinstance(each, str) else name_of(each) for each in (reply, *others)]
    extra: dict[str, Any] = {
        REPLIES: replies,
        QUERY: [
            {
                "name": each.name,
                "in": "query",
                "required": False,
                "schema": each.schema,
                "description": each.description,
            }
            for each in query
        ],
    }
    if body is not None:
        extra[BODY] = body if isinstance(body, str) else name_of(body)
    if status is not None:
        extra[STATUS] = status
    if accepted is not None:
        extra[ACCEPTED] = accepted
    if example is not None:
        extra[EXAMPLE] = example
    if events is not None:
        extra[EVENTS] = events
    return {"summary": summary, "tags": [tag], "openapi_extra": extra}


def name_of(shape: type) -> str:
    """The place of a type, by which `pkgutil.resolve_name` finds it."""
    return f"{shape.__module__}:{shape.__qualname__}"
