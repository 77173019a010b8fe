"""The facts for a request's line in the access log, collected in its ASGI scope while it runs."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from periscope.core import new_id

_KEY = "periscope.record"


@dataclass(slots=True)
class RequestRecord:
    """One request's line in the access log. Owned by `RequestLog`; the layers and routes inside it fill it in.

    Attributes:
        id: the client gets it in `headers`.
        model: the name in the request.
        key: name of the API key that it came with; None where no key is asked for.
        answered_by: the model that answers instead, if the name stands for another one.
        route: the template of the path that answers it; "" before it is found.
        error: code of the error that the client got, even in the middle of a stream.
    """

    id: str = field(default_factory=lambda: new_id("req_"))
    model: str | None = None
    key: str | None = None
    answered_by: str | None = None
    route: str = ""
    error: str | None = None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The id under the names that OpenAI's and Anthropic's clients read."""
        return [(b"x-request-id", self.id.encode()), (b"request-id", self.id.encode())]

    def id_as(self, prefix: str) -> str:
        """The id with another prefix, so that the id of an answer leads to its log line."""
        return prefix + self.id.removeprefix("req_")


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """The request's record, which the first call makes."""
    if _KEY not in scope:
        scope[_KEY] = RequestRecord()
    return cast("RequestRecord", scope[_KEY])
