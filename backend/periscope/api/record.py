"""What the access log says about a request, collected in its ASGI scope while the request runs."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any, cast

from periscope.core import new_id

_KEY = "periscope.record"


@dataclass(slots=True)
class RequestRecord:
    """One request's line in the access log. `RequestLog` owns it; the layers and routes inside fill in what they learn.

    Attributes:
        id: also the `x-request-id` the client gets.
        model: as the client asked for it.
        error: code of the error the client got, also one in the middle of a stream.
    """

    id: str = field(default_factory=lambda: new_id("req_"))
    model: str | None = None
    error: str | None = None

    def id_as(self, prefix: str) -> str:
        """The same id under another prefix, so that an answer's id leads to its log line."""
        return prefix + self.id.removeprefix("req_")


def record_of(scope: MutableMapping[str, Any]) -> RequestRecord:
    """The request's record, made at the first call."""
    return cast("RequestRecord", scope.setdefault(_KEY, RequestRecord()))
