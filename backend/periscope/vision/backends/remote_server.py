"""The configuration of a captioner on another server. Plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from periscope.vision.backends.dialects import DIALECTS, Dialect


@dataclass(frozen=True, slots=True)
class RemoteServer:
    """One model on one server, as models.yaml describes it.

    Attributes:
        name: that of the entry in models.yaml.
        backend: a key of `DIALECTS`.
        base_url: URL of the server, including `/v1`.
        model: its name in the server's listing.
        is_streamed: the caption is asked for as a stream.
        max_concurrent: images that the server is asked about at once.
        num_retries: further tries for an image where they can help.
        extra_body: fields of every request; they win over the dialect's.
        missing_key: the environment variable that should hold the API key and is not set.
    """

    name: str
    backend: str
    base_url: str
    model: str
    is_streamed: bool = False
    max_concurrent: int = 4
    num_retries: int = 2
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    missing_key: str | None = None

    @property
    def dialect(self) -> Dialect:
        """How requests to the server are made."""
        return DIALECTS[self.backend]

    @property
    def revision(self) -> str:
        """What its captions depend on, as far as is known: a server can change the model behind a name."""
        return f"{self.backend}:{self.base_url.rstrip('/')}#{self.model}"
