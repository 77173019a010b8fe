"""One turn: what the client sent, and what was answered. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from periscope.core import JSONObject


@dataclass(frozen=True, slots=True)
class Turn:
    """One request and its answer. Items are JSON objects in the shapes of whoever keeps them; each has an `id`.

    Attributes:
        id: of the answer, and of the turn.
        previous_id: of the turn that this one goes on from.
        inputs: the items of the request.
        outputs: the items of the answer.
        answer: everything else of the answer; None while it is being made.
    """

    id: str
    previous_id: str | None = None
    inputs: tuple[JSONObject, ...] = ()
    outputs: tuple[JSONObject, ...] = ()
    answer: JSONObject | None = field(default=None)


class TurnMissing(Exception):
    """There is no turn of this id: it was never kept, was deleted, or had to make room.

    Attributes:
        id: of the turn that is missing, which may be an earlier one than the turn that was asked for.
    """

    def __init__(self, turn_id: str) -> None:
        super().__init__(f"there is no turn {turn_id}")
        self.id = turn_id


class TurnsTooLarge(Exception):
    """The turns that an answer would go on from have more bytes than may be read at once.

    Attributes:
        num_bytes: of them all.
    """

    def __init__(self, num_bytes: int) -> None:
        super().__init__(f"the turns have {num_bytes} bytes")
        self.num_bytes = num_bytes
