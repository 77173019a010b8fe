"""What a worker asks of a model and its batch. Text models and captioners differ only behind this."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from periscope.core import FinishReason
    from periscope.engine.commands import Submit
    from periscope.engine.detokenizer import Detokenizer


@dataclass(frozen=True, slots=True)
class Sampled:
    """One row's result of one step. `finish_reason` is STOP when `token_id` ends the sequence."""

    row: int
    token_id: int
    logprob: float | None = None
    finish_reason: FinishReason | None = None


class Batch(Protocol):
    """Rows in flight. After `step` raised, every row is lost and only `close` may be called."""

    def admit(self, submit: Submit) -> int:
        """Take a request in and return its row id. May raise for this request; the others are unharmed."""
        ...

    def step(self) -> Iterable[Sampled]:
        """One decode step of all rows and at most one chunk of prefill."""
        ...

    def fault_of(self, row: int) -> Exception | None:
        """What a sampler or processor of this row raised, if it did; the row's tokens are worthless then."""
        ...

    def remove(self, rows: Sequence[int]) -> None:
        """Drop rows in any phase; unknown ones are ignored."""
        ...

    def close(self) -> None:
        """Let go of all rows and caches."""
        ...


class LoadedModel(Protocol):
    """A model in memory, as its worker sees it."""

    def new_batch(self) -> Batch:
        """An empty batch."""
        ...

    def new_detokenizer(self) -> Detokenizer:
        """A fresh detokenizer for one row."""
        ...
