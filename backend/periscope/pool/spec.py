"""What the pool asks of whoever brings it a model: how to measure it, how to load it, what a loaded one can do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


class PooledEngine(Protocol):
    """What the pool asks of an engine, whatever it computes."""

    @property
    def is_alive(self) -> bool:
        """It takes requests."""
        ...

    @property
    def weights_bytes(self) -> int:
        """What its weights take in memory."""
        ...

    @property
    def working_bytes(self) -> int:
        """What the requests that it works on take beside the weights, as far as this process is concerned."""
        ...

    async def ended(self) -> None:
        """Wait until it has ended, for whatever reason."""
        ...

    def release_memory(self) -> None:
        """Give back, soon, what is only kept for speed."""
        ...

    async def close(self) -> None:
        """Idempotent: free the model."""
        ...


#: Called from any thread with (bytes loaded, bytes in all).
LoadProgress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Need:
    """What a model will take: its weights, and room for work on top, without which it would be of no use."""

    weights_bytes: int
    reserve_bytes: int

    @property
    def total_bytes(self) -> int:
        """Both."""
        return self.weights_bytes + self.reserve_bytes


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """How the pool gets a model, and on what terms.

    Attributes:
        measure: looks at its files; moves nothing, and raises PeriscopeError if they cannot be used.
        load: may take minutes and may be cancelled.
        max_leases: requests that may use it at once.
        is_pinned: never unloaded to make room or for idleness.
        ttl_s: unloaded after so long without work; None = never.
        is_isolated: it lives in a process of its own, so that ending this one would mend nothing.
    """

    name: str
    measure: Callable[[], Awaitable[Need]]
    load: Callable[[LoadProgress], Awaitable[PooledEngine]]
    max_leases: int = 1
    is_pinned: bool = False
    ttl_s: float | None = None
    is_isolated: bool = False
