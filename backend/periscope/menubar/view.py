"""What is known of the server at one moment. Frozen data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.remote import Snapshot


@dataclass(frozen=True, slots=True)
class View:
    """All that a menu shows.

    Attributes:
        snapshot: None = no server runs.
        url: the server's, without `/v1`.
        captions: made or used last, the newest first.
        page: the address of the server's own page, if it has one.
        has_agent: launchd can start the server.
    """

    snapshot: Snapshot | None = None
    url: str = ""
    captions: tuple[str, ...] = ()
    page: str | None = None
    has_agent: bool = False

    @property
    def is_busy(self) -> bool:
        """Whether something changes that no event tells: tokens are written, or a model loads."""
        if self.snapshot is None:
            return False
        return bool(self.snapshot.requests) or any(model.load is not None for model in self.snapshot.models)
